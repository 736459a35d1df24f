-- Say that nobody leads, unless leadership has passed to another already, and let those who stand by know.
--
-- KEYS[1]  the leader
-- ARGV[1]  the term that ends
-- Returns  1 if it led, 0 if not

if redis.pcall('HGET', KEYS[1], 'term') ~= ARGV[1] then
  return 0
end
redis.pcall('PUBLISH', 'pm:scheduler', '"resigned"')
redis.pcall('HSET', KEYS[1], 'until', '0') -- which a full memory refuses: then the term ends by itself
return 1
