-- Correct what a running job took of its rate by what it really spent, unless the worker has lost its claim.
-- requires: jobs/events, jobs/stated_limits, jobs/rates, jobs/records
--
-- KEYS[1]  the worker's claims
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  what it spent in this execution so far, a whole number
-- Returns  1 if that is so now, or if its rate has no costs; 0 if not

local claims = KEYS[1]
local id, execution, spent = ARGV[1], ARGV[2], tonumber(ARGV[3])

if redis.pcall('HGET', claims, id) ~= execution or not records.exists(id) then return 0 end
if not records.is_callback(execution) then
  for _, need in ipairs(stated_limits.parse(records.get(id, 'limits'))) do
    if need[1] == 'rate' and need[5] then rates.correct(need, id, execution, spent) end
  end
end
events.write() -- that a key of another type was set aside
return 1
