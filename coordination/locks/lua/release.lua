-- Release a lock if the caller holds it, wake waiters, and raise the counter to the holder's token.
-- requires: locked
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  the holder's value    ARGV[2]  the token; 0 after a failed attempt, which wakes nobody
-- ARGV[3]  seconds to keep the counter    ARGV[4]  the channel of the waiters
-- Returns  1 if the holder had the lock here, 0 if not

local lock, counter = KEYS[1], KEYS[2]
local value, token, counter_ttl, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local held = locked.by(lock) == value
if held then
  redis.call('DEL', lock)
end
if token ~= '0' then
  -- Not worth failing for: a full memory refuses it, and the next holder raises the counter as well.
  if locked.count(counter) < tonumber(token) then
    redis.pcall('SET', counter, token, 'EX', counter_ttl)
  end
  redis.call('PUBLISH', channel, 'released')
end
return held and 1 or 0
