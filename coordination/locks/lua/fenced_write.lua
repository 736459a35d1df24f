-- Write a guarded value, unless a later holder has used it.
--
-- KEYS[1]  the value    KEYS[2]  the last token seen
-- ARGV[1]  the holder's token    ARGV[2]  the value to write
-- ARGV[3]  milliseconds to keep the value, 0 forever    ARGV[4]  milliseconds to keep the token
-- Returns  {1}, or {0, the token seen} if a later holder has used it

local seen = redis.call('GET', KEYS[2])
if seen and tonumber(seen) > tonumber(ARGV[1]) then
  return {0, seen}
end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[4])
end
return {1}
