-- Count jobs of a batch that ended elsewhere: RQ's code canceled or deleted them, or a worker of RQ's performed them.
-- Jobs that a batch still holds although it is not paused go back, and changes of a flow that have yet to reach nodes
-- do: whoever was to see to that may have died over it.
-- requires: jobs/caller, jobs/counting, jobs/events, jobs/guarded, jobs/records, scheduler/fence
-- may use: jobs/batches, jobs/flows, jobs/giving, jobs/holding, jobs/recounting
--
-- KEYS[1]  the batch    KEYS[2]  the states of its jobs
-- ARGV[1]  the batch    ARGV[2]  a cursor among its jobs, "0" at first    ARGV[3]  about how many jobs to look at
-- ARGV[4]  now as RQ's text    ARGV[5]  the leader's term, or ""
-- Returns  the next cursor, "0" after the last; "not leading" if another leads

local key, jobs = KEYS[1], KEYS[2]
local batch, cursor, most, now_text, term = unpack(ARGV)

if not fence.admits(term) then return 'not leading' end
caller.at = now_text

local collects, is_recounting, start = unpack(redis.pcall('HMGET', key, 'collect', 'recounting', 'start'))

-- How a job ended that is pending for its batch, or nothing if it has not.
local function end_of(id)
  if id:sub(1, 6) == 'batch:' then return redis.call('EXISTS', 'pm:' .. id) == 0 and 'f' end
  local fields = records.read(id, 'status')
  if fields.err then return 'f' end -- the key holds something else
  if fields[1] then return counting.state_of(fields[1]) end
  return not records.exists(id) and 'c'
end

local found = guarded.call('HSCAN', jobs, cursor, 'COUNT', most)
if is_recounting then recounting.step(batch, found[2], found[1] == '0') end
for i = 1, #found[2], 2 do
  local id, state = found[2][i], found[2][i + 1]
  local ended = state == 'p' and end_of(id)
  if ended then counting.note(id, ended, batch, (start or collects == '1') and giving.last(id, ended) or nil) end
end
if start then flows.go_on(batch) end
batches.settle(batch) -- its last job may have been counted without that
batches.count_noted()
if guarded.call('SISMEMBER', 'pm:batches-paused', batch) == 0 then holding.give_back(batch) end
events.write()
return found[1]
