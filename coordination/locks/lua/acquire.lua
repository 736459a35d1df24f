-- Take a lock on this node if it is free, and count its holders: the count is this node's fencing token.
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  a value that only this attempt knows    ARGV[2]  the TTL in milliseconds
-- ARGV[3]  seconds to keep the counter
-- Returns  the token, or 0 if another holds the lock

if holder(KEYS[1]) then
  return 0
end
local token = count(KEYS[2]) + 1
if token == 1 then
  -- New, forgotten or lost: microseconds since 1970 exceed any count that began earlier.
  local time = redis.call('TIME')
  token = time[1] * 1000000 + time[2]
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', token), 'EX', ARGV[3])
return token
