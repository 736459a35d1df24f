-- Record the leader and the end of its time, unless a later leader is recorded. Scripts of its duties compare its term.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the leader: a hash of name, term, since and until (Unix seconds by this server's clock)
-- ARGV[1]  the leader's name    ARGV[2]  its term    ARGV[3]  milliseconds for which it leads from now on
-- Returns  1 if it leads, 0 if a later leader was recorded

local leader = KEYS[1]
local name, term_text, span = ARGV[1], ARGV[2], ARGV[3]

local DAY = 86400
local now = clock.now
if redis.call('TYPE', leader).ok ~= 'hash' then
  redis.call('DEL', leader)
end

-- Terms count from microseconds since 1970. A term that is no such number would keep every scheduler from leading.
local seen = tonumber((redis.call('HGET', leader, 'term') or ''):match('^%d+$')) or 0
if seen > (now + DAY) * 1000000 then seen = 0 end
local term = tonumber(term_text)
if seen > term then
  return 0
end
if seen < term then
  redis.call('HSET', leader, 'name', name, 'term', term_text, 'since', string.format('%.3f', now))
end
redis.call('HSET', leader, 'until', string.format('%.3f', now + span / 1000))
return 1
