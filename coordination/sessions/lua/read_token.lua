-- Read a token, and note at most once a minute that it was used.
-- requires: coordination/redis/clock, hashes
--
-- KEYS[1]  the token
-- ARGV[1]  seconds after which its use is noted again
-- Returns  {what is known of it, JSON, its end in Unix seconds, its last use before or ""}, or nothing if it has ended

local token = KEYS[1]
local every = tonumber(ARGV[1])

local about, ends, used = unpack(hashes.read(token, 'about', 'ends', 'used'))
if not about or (tonumber(ends) or 0) <= clock.now then return end
if math.abs(clock.now - (tonumber(used) or 0)) >= every then
  redis.pcall('HSET', token, 'used', string.format('%.3f', clock.now)) -- which a full memory or a replica may refuse
end
return {about, ends, used or ''}
