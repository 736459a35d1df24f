-- Name workers whose lease has ended, the earliest first; none during a lull, for those that live renew theirs then.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the leases    KEYS[2]  the lull (lib/renewal.lua)
-- ARGV[1]  at most how many    ARGV[2]  the lease in seconds
-- Returns  their names

local leases, lull = KEYS[1], KEYS[2]
local most, seconds = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = clock.now

-- A clock that went back leaves leases that end later than any may. They count from now on.
local early = redis.pcall('ZRANGEBYSCORE', leases, string.format('(%.6f', now + seconds + 1), '+inf', 'LIMIT', 0, most)
if early.err then return {} end
for _, worker in ipairs(early) do redis.call('ZADD', leases, now + seconds, worker) end

if redis.call('EXISTS', lull) == 1 then return {} end
return redis.call('ZRANGEBYSCORE', leases, '-inf', string.format('%.6f', now), 'LIMIT', 0, most)
