-- Begin a family of refresh tokens.
-- requires: coordination/redis/clock, hashes, endings
--
-- KEYS[1]  the family    KEYS[2]  when all that its user has was last ended
-- ARGV[1]  the user    ARGV[2]  the user as part of keys    ARGV[3]  the hash of the first token    ARGV[4]  data, JSON
-- ARGV[5]  milliseconds that a token may stay unused    ARGV[6]  seconds until the family ends
-- ARGV[7]  milliseconds that an end of all is kept
-- Returns  1
--
-- Repeated after a lost reply, the script begins the same family.

local family, ending = KEYS[1], KEYS[2]
local user, by, token, data = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle_ms, absolute, ending_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]

local after, ends = endings.beginning(ending, ending_ms), string.format('%.3f', clock.now + absolute)
hashes.write(family, 'user', user, 'by', by, 'after', after, 'token', token, 'data', data, 'ends', ends)
redis.call('PEXPIRE', family, math.min(idle_ms, absolute * 1000))
return 1
