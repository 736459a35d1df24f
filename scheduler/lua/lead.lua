-- Record the leader and the end of its time, unless a later leader is recorded. Scripts of its duties compare its term.
--
-- KEYS[1]  the leader: a hash of name, term, since and until (Unix seconds by this server's clock)
-- ARGV[1]  the leader's name    ARGV[2]  its term    ARGV[3]  milliseconds for which it leads from now on
-- Returns  1 if it leads, 0 if a later leader was recorded

if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  redis.call('DEL', KEYS[1])
end
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local DAY = 86400

-- Terms count from microseconds since 1970. A term that is no such number would keep every scheduler from leading.
local seen = tonumber((redis.call('HGET', KEYS[1], 'term') or ''):match('^%d+$')) or 0
if seen > (now + DAY) * 1000000 then seen = 0 end
local term = tonumber(ARGV[2])
if seen > term then
  return 0
end
if seen < term then
  redis.call('HSET', KEYS[1], 'name', ARGV[1], 'term', ARGV[2], 'since', string.format('%.3f', now))
end
redis.call('HSET', KEYS[1], 'until', string.format('%.3f', now + ARGV[3] / 1000))
return 1
