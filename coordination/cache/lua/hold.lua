-- Extend the lease to compute, or end it and wake waiters, if the caller holds it.
--
-- KEYS[1]  the lease
-- ARGV[1]  the claim    ARGV[2]  milliseconds from now, 0 to end it    ARGV[3]  the channel of the waiters
-- Returns  1 if it was held, 0 if it was lost

local lease = KEYS[1]
local claim, span_ms, channel = ARGV[1], ARGV[2], ARGV[3]

local held = redis.call('GET', lease) == claim
if held and span_ms ~= '0' then
  redis.call('PEXPIRE', lease, span_ms)
elseif held then
  redis.call('DEL', lease)
  redis.call('PUBLISH', channel, 'given back')
end
return held and 1 or 0
