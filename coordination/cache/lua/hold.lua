-- Extend the lease to compute, or end it and wake waiters, if the caller holds it.
--
-- KEYS[1]  the lease
-- ARGV[1]  the claim    ARGV[2]  milliseconds from now, 0 to end it    ARGV[3]  the channel of the waiters
-- Returns  1 if it was held, 0 if it was lost

local held = redis.call('GET', KEYS[1]) == ARGV[1]
if held and ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif held then
  redis.call('DEL', KEYS[1])
  redis.call('PUBLISH', ARGV[3], 'given back')
end
return held and 1 or 0
