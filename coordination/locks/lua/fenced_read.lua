-- Read a guarded value, and refuse all earlier holders from now on.
--
-- KEYS[1]  the value    KEYS[2]  the last token seen
-- ARGV[1]  the holder's token
-- Returns  {1, the value or nil}, or {0, the token seen} if a later holder has used it

local seen = redis.call('GET', KEYS[2])
if seen and tonumber(seen) > tonumber(ARGV[1]) then
  return {0, seen}
end
if seen ~= ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1], 'KEEPTTL')
end
return {1, redis.call('GET', KEYS[1])}
