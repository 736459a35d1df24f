-- Say that nobody leads, unless leadership has passed to another already, and let those who stand by know.
--
-- KEYS[1]  the leader
-- ARGV[1]  the term that ends
-- Returns  1 if it led, 0 if not

if redis.pcall('HGET', KEYS[1], 'term') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'until', '0')
redis.pcall('PUBLISH', 'pm:scheduler', '"resigned"')
return 1
