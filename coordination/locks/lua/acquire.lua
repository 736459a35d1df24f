-- Take a lock on this node if it is free, and count its holders: the count is this node's fencing token.
-- requires: coordination/redis/clock, locked
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  a value that only this attempt knows    ARGV[2]  the TTL in milliseconds
-- ARGV[3]  seconds to keep the counter
-- Returns  the token, or 0 if another holds the lock

local lock, counter = KEYS[1], KEYS[2]
local value, ttl_ms, counter_ttl = ARGV[1], ARGV[2], ARGV[3]

if locked.by(lock) then
  return 0
end
local token = locked.count(counter) + 1
if token == 1 then
  token = clock.microseconds -- new, forgotten or lost: microseconds since 1970 exceed any count that began earlier
end
redis.call('SET', lock, value, 'PX', ttl_ms)
redis.call('SET', counter, string.format('%.0f', token), 'EX', counter_ttl)
return token
