-- Record that nobody leads, unless another scheduler already does, and notify the schedulers that stand by.
--
-- KEYS[1]  the leader
-- ARGV[1]  the term that ends
-- Returns  1 if it led, 0 if not

local leader = KEYS[1]
local term = ARGV[1]

if redis.pcall('HGET', leader, 'term') ~= term then
  return 0
end
redis.pcall('PUBLISH', 'pm:scheduler', '"resigned"')
redis.pcall('HSET', leader, 'until', '0') -- a full memory refuses this: then the term ends by itself
return 1
