-- Take tokens from a bucket, or report how long until it has enough: GCRA, by the server's clock.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the bucket: a string, the time at which it is full again, in Unix microseconds
-- ARGV[1]  how many tokens    ARGV[2]  microseconds until one is refilled
-- ARGV[3]  microseconds in which an empty bucket fills    ARGV[4]  "1" to take them, "0" to look only
-- Returns  {1 if there are enough, tokens left, microseconds until there are enough, microseconds until it is full}
--
-- All numbers are whole and below 2^53, where Lua's numbers are exact and Redis writes all digits. A full bucket
-- needs no key.

local bucket = KEYS[1]
local tokens, interval, capacity, is_taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local now = clock.microseconds
local full_at = tonumber(redis.call('GET', bucket) or 0)
if not (full_at and full_at >= 0) then -- false for NaN too
  return redis.error_reply('WRONGTYPE: no bucket')
end

-- Never fuller than full, nor emptier than empty, as it could seem after the rate or the clock has changed.
full_at = math.min(math.max(full_at, now), now + capacity)
local after = full_at + tokens * interval
local wait = after - capacity - now
if wait > 0 then
  return {0, math.floor((now + capacity - full_at) / interval), wait, full_at - now}
end
if not is_taken then
  return {1, math.floor((now + capacity - full_at) / interval), 0, full_at - now}
end
redis.call('SET', bucket, after, 'PX', math.ceil((after - now) / 1000))
return {1, math.floor((now + capacity - after) / interval), 0, after - now}
