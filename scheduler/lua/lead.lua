-- Become the leader if there is none, or stay it: one holder at a time, for `term` milliseconds from now.
--
-- KEYS[1]  the leader's key
-- ARGV[1]  the candidate    ARGV[2]  the term in milliseconds
-- Returns  1 if the candidate leads now, 0 if another does

local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
