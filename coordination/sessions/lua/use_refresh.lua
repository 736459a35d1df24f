-- Use a refresh token: it is followed by the next one of its family. A token that was used before ends the family.
-- requires: coordination/redis/clock, hashes, endings
--
-- KEYS[1]  the family
-- ARGV[1]  the hash of the token    ARGV[2]  the hash of the token to follow it    ARGV[3]  the salt of that one
-- ARGV[4]  what the keys of ends of all begin with    ARGV[5]  milliseconds that a token may stay unused
-- ARGV[6]  seconds in which the token that was used last may be shown again
-- Returns  {"used" or "again", the salt of the token that follows, the user, data, the family's end},
--          {"reused", "", the user} if it was used before, or {"over"}
--
-- Repeated after a lost reply, the script replies "again" and the salt, from which the holder of the token, and nobody
-- else, makes the same next token.

local family = KEYS[1]
local token, next_token, new_salt, endings_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle_ms, grace = tonumber(ARGV[5]), tonumber(ARGV[6])

local user, by, after, current, data, ends, last, used_at, salt, dead =
  unpack(hashes.read(family, 'user', 'by', 'after', 'token', 'data', 'ends', 'last', 'used_at', 'salt', 'dead'))
local left = (tonumber(ends) or 0) - clock.now
if not (user and by and current and data) or left <= 0 then return {'over'} end
if dead then return {'reused', '', user} end
if endings.is_over(endings_prefix .. by, after) then return {'over'} end
if token == current then
  redis.call('HSET', family, 'token', next_token, 'last', token, 'salt', new_salt,
    'used_at', string.format('%.6f', clock.now))
  redis.call('PEXPIRE', family, math.ceil(math.min(idle_ms, left * 1000)))
  return {'used', new_salt, user, data, ends}
end
local since = clock.now - (tonumber(used_at) or 0)
if token == last and salt and math.abs(since) <= grace then return {'again', salt, user, data, ends} end
-- Known until the family would have ended: whoever holds one of its tokens is told the same.
redis.call('HSET', family, 'dead', 'reused')
redis.call('PEXPIRE', family, math.ceil(left * 1000))
return {'reused', '', user}
