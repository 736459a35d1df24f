-- Give leadership up at once, unless it has passed to another already.
--
-- KEYS[1]  the leader's key
-- ARGV[1]  who resigns
-- Returns  1 if it led, 0 if not

if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
