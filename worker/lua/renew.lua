-- Renew the leases of living workers, and update their RQ hashes. The hash of a worker that has signed off or was
-- removed is not written: it would exist again for minutes.
-- requires: coordination/redis/clock, jobs/events
-- may use: renewal
--
-- KEYS[1]  the leases
-- ARGV[1]  the lease in seconds    ARGV[2]  seconds after which RQ forgets a worker    ARGV[3]  now as RQ's text
-- ARGV[4]  how many workers    ARGV[5+]  their names, then for each hash to update the hash, the job that the
--          worker performs or "", and the bytes of memory that it uses
-- Returns  how many leases were renewed

local leases = KEYS[1]
local lease, hash_ttl, now_text, count, names = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), {unpack(ARGV, 5)}

renewal.renew(leases, clock.now + lease, {unpack(names, 1, count)})
for i = count + 1, #names, 3 do
  local worker, job, memory = unpack(names, i, i + 2)
  local known = redis.pcall('HMGET', worker, 'birth', 'death') -- one of another type is skipped
  if known[1] and not known[2] then
    if job == '' then
      redis.call('HSET', worker, 'last_heartbeat', now_text, 'memory', memory, 'state', 'idle')
      redis.call('HDEL', worker, 'current_job')
    else
      redis.call('HSET', worker, 'last_heartbeat', now_text, 'memory', memory, 'state', 'busy', 'current_job', job)
    end
    redis.call('EXPIRE', worker, hash_ttl)
  end
end
events.write()
return count
