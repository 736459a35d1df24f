-- Read a guarded value, and refuse all earlier holders from now on.
--
-- KEYS[1]  the value    KEYS[2]  the last token seen
-- ARGV[1]  the holder's token
-- Returns  {1, the value or nil}, or {0, the token seen} if a later holder has used it

local key, seen_key = KEYS[1], KEYS[2]
local token = ARGV[1]

local seen = redis.call('GET', seen_key)
if seen and tonumber(seen) > tonumber(token) then
  return {0, seen}
end
if seen ~= token then
  redis.call('SET', seen_key, token, 'KEEPTTL')
end
return {1, redis.call('GET', key)}
