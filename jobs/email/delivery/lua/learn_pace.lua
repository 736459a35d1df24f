-- Slow a domain that refused a mail for now, or speed it up a little after one that it took.
-- requires: coordination/redis/clock, paces
--
-- KEYS[1]  the slow domains: a sorted set by when they are forgotten, in Unix seconds    KEYS[2]  the domain's pace
-- ARGV[1]  the domain    ARGV[2]  "slow" or "ease"
-- Returns  microseconds from one mail to the next, 0 if the domain is not slow
--
-- Refusals while the domain rests say nothing new: those mails were on their way.

local slow, key = KEYS[1], KEYS[2]
local domain, verdict = ARGV[1], ARGV[2]

local FIRST, FASTEST = 1000000, 50000 -- microseconds from one mail to the next
local SHORTEST_REST = 10000000 -- after a refusal
local FORGOTTEN = 7200 -- seconds
local MOST = 10000 -- domains

local now = clock.microseconds
local interval, next_at, line_at = paces.read(key)

if verdict == 'ease' then
  interval = math.floor((interval or 0) * 0.7)
  if interval < FASTEST then
    redis.call('DEL', key)
    redis.call('ZREM', slow, domain)
    return 0
  end
  next_at = math.min(next_at, now + interval)
elseif interval and next_at > now + interval then
  return interval
else
  interval = math.min(math.max(FIRST, 2 * (interval or 0)), paces.SLOWEST)
  next_at = now + math.max(interval, SHORTEST_REST)
end
redis.call('SET', key, paces.text(interval, next_at, line_at or 0), 'EX', FORGOTTEN)
redis.call('ZADD', slow, clock.second + FORGOTTEN, domain)
redis.call('ZREMRANGEBYSCORE', slow, '-inf', clock.second)
redis.call('ZREMRANGEBYRANK', slow, 0, -MOST - 1)
redis.call('EXPIRE', slow, FORGOTTEN)
return interval
