-- Renew the lease on a slot, unless it has ended.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the slots: a sorted set of holders by the end of their leases, in Unix seconds
-- ARGV[1]  the holder    ARGV[2]  the lease in seconds
-- Returns  1 if it is held, 0 if it was lost

local slots = KEYS[1]
local holder, lease = ARGV[1], ARGV[2]

local ends = redis.call('ZSCORE', slots, holder)
if not ends or tonumber(ends) <= clock.now then
  return 0
end
redis.call('ZADD', slots, string.format('%.6f', clock.now + lease), holder)
redis.call('PEXPIREAT', slots, math.ceil(redis.call('ZRANGE', slots, -1, -1, 'WITHSCORES')[2] * 1000))
return 1
