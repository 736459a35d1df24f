-- Take a slot for the length of a lease, if one is free.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the slots: a sorted set of holders by the end of their leases, in Unix seconds
-- ARGV[1]  the holder    ARGV[2]  the number of slots    ARGV[3]  the lease in seconds
-- Returns  "" if a slot was taken, otherwise the seconds until the next lease ends
--
-- Repeated after a lost reply, the script takes no second slot.

local key = KEYS[1]
local holder, slots, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local now = clock.now

redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.6f', now))
if not redis.call('ZSCORE', key, holder) and redis.call('ZCARD', key) >= slots then
  return string.format('%.6f', redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] - now)
end
redis.call('ZADD', key, string.format('%.6f', now + lease), holder)
-- The key lasts as long as its last lease.
redis.call('PEXPIREAT', key, math.ceil(redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')[2] * 1000))
return ''
