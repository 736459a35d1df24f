-- Take a lock on this node if it is free, and count its holders: the count is this node's fencing token.
-- requires: coordination/redis/clock, locked
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  a value that only this attempt knows    ARGV[2]  the TTL in milliseconds
-- ARGV[3]  seconds to keep the counter    ARGV[4]  the longest TTL that a lock may have, in milliseconds
-- Returns  the token, or 0 if another holds the lock

local lock, counter = KEYS[1], KEYS[2]
local value, ttl_ms, counter_ttl, longest_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])

if locked.by(lock) then
  -- A clock that went back leaves locks that end later than any may. They count from now on.
  if redis.call('PTTL', lock) > longest_ms then redis.call('PEXPIRE', lock, longest_ms) end
  return 0
end
local token = locked.count(counter) + 1
if token == 1 then
  token = clock.microseconds -- new, forgotten or lost: microseconds since 1970 exceed any count that began earlier
end
redis.call('SET', lock, value, 'PX', ttl_ms)
redis.call('SET', counter, string.format('%.0f', token), 'EX', counter_ttl)
return token
