-- Renew the leases of living workers, and update their RQ hashes. The hash of a worker that has signed off or was
-- removed is not written: it would exist again for minutes.
--
-- KEYS[1]  the leases
-- ARGV[1]  the lease in seconds    ARGV[2]  seconds after which RQ forgets a worker    ARGV[3]  now as RQ's text
-- ARGV[4]  how many workers    ARGV[5+]  their names, then for each hash to update the hash and the job that the
--          worker performs, or ""
-- Returns  how many leases were renewed

local time = redis.call('TIME')
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'zset' and found ~= 'none' then
  redis.call('RENAME', KEYS[1], 'pm:broken:' .. KEYS[1]) -- a corrupt key must not stop heartbeats
end
local ends, last = time[1] + time[2] / 1000000 + ARGV[1], 4 + ARGV[4]
for i = 5, last do
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
end
for i = last + 1, #ARGV, 2 do
  local worker, job = ARGV[i], ARGV[i + 1]
  local known = redis.pcall('HMGET', worker, 'birth', 'death') -- one of another type is skipped
  if known[1] and not known[2] then
    if job == '' then
      redis.call('HSET', worker, 'last_heartbeat', ARGV[3], 'state', 'idle')
      redis.call('HDEL', worker, 'current_job')
    else
      redis.call('HSET', worker, 'last_heartbeat', ARGV[3], 'state', 'busy', 'current_job', job)
    end
    redis.call('EXPIRE', worker, ARGV[2])
  end
end
return last - 4
