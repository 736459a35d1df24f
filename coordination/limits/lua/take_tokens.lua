-- Take tokens from a bucket, or report how long until it has enough: GCRA, by the server's clock.
-- requires: coordination/redis/clock, tokens
--
-- KEYS[1]  the bucket: a string, the time at which it is full again, in Unix microseconds
-- ARGV[1]  how many tokens    ARGV[2]  microseconds until one is refilled
-- ARGV[3]  microseconds in which an empty bucket fills    ARGV[4]  "1" to take them, "0" to look only
-- Returns  {1 if there are enough, tokens left, microseconds until there are enough, microseconds until it is full}

local bucket = KEYS[1]
local count, interval, capacity, is_taken = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local full_at = tokens.full_at(redis.call('GET', bucket), capacity)
if not full_at then
  return redis.error_reply('WRONGTYPE: no bucket')
end
local wait = tokens.wait(full_at, capacity, interval, count)
if wait <= 0 and is_taken then full_at = tokens.take(bucket, full_at, interval, count) end
local has_enough, left = wait <= 0 and 1 or 0, tokens.left(full_at, capacity, interval)
return {has_enough, left, math.max(wait, 0), full_at - clock.microseconds}
