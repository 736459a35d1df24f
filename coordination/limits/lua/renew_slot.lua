-- Renew the lease on a slot, unless it has ended.
--
-- KEYS[1]  the slots: a sorted set of holders by the end of their leases, in Unix seconds
-- ARGV[1]  the holder    ARGV[2]  the lease in seconds
-- Returns  1 if it is held, 0 if it was lost

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local ends = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not ends or tonumber(ends) <= now then
  return 0
end
redis.call('ZADD', KEYS[1], string.format('%.6f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIREAT', KEYS[1], math.ceil(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] * 1000))
return 1
