-- Write a guarded value, unless a later holder has used it.
--
-- KEYS[1]  the value    KEYS[2]  the last token seen
-- ARGV[1]  the holder's token    ARGV[2]  the value to write
-- ARGV[3]  milliseconds to keep the value, 0 forever    ARGV[4]  milliseconds to keep the token
-- Returns  {1}, or {0, the token seen} if a later holder has used it

local key, seen_key = KEYS[1], KEYS[2]
local token, value, value_ms, token_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local seen = redis.call('GET', seen_key)
if seen and tonumber(seen) > tonumber(token) then
  return {0, seen}
end
if value_ms == '0' then
  redis.call('SET', key, value)
  redis.call('SET', seen_key, token)
else
  redis.call('SET', key, value, 'PX', value_ms)
  redis.call('SET', seen_key, token, 'PX', token_ms)
end
return {1}
