-- Remember the end of a step of a running job, or that it begins, unless the worker has lost its claim.
-- requires: coordination/redis/clock, jobs/steps
--
-- KEYS[1]  the worker's claims    KEYS[2]  the job's steps
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  the version of its code
-- ARGV[4]  the step's field    ARGV[5]  its value as far as the time, or "" to forget the step    ARGV[6]  the rest
-- ARGV[7]  a field to forget besides, or ""
-- Returns  1 if it was written, 0 if not

local claims, key = KEYS[1], KEYS[2]
local id, execution, version, field, head, rest, other = unpack(ARGV)

if redis.pcall('HGET', claims, id) ~= execution then return 0 end
if head == '' then
  redis.pcall('HDEL', key, field)
  return 1
end
local value = head .. string.format('%.6f', clock.now) .. rest
if not steps.open(id, version) or not steps.put(id, field, value) then return 0 end
if other ~= '' then redis.call('HDEL', key, other) end
return 1
