-- Release a lock if the caller holds it, wake waiters, and raise the counter to the holder's token.
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  the holder's value    ARGV[2]  the token; 0 after a failed attempt, which wakes nobody
-- ARGV[3]  seconds to keep the counter    ARGV[4]  the channel of the waiters
-- Returns  1 if the holder had the lock here, 0 if not

local held = holder(KEYS[1]) == ARGV[1]
if held then
  redis.call('DEL', KEYS[1])
end
if ARGV[2] ~= '0' then
  -- Not worth failing for: a full memory refuses it, and the next holder raises the counter as well.
  if count(KEYS[2]) < tonumber(ARGV[2]) then
    redis.pcall('SET', KEYS[2], ARGV[2], 'EX', ARGV[3])
  end
  redis.call('PUBLISH', ARGV[4], 'released')
end
return held and 1 or 0
