-- Count events unless the last period would then hold more than the limit: exact, by the server's clock.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the window: a list of the times of the last events, in Unix microseconds, the newest last
-- ARGV[1]  how many events    ARGV[2]  the limit
-- ARGV[3]  the period in microseconds    ARGV[4]  "1" to count them, "0" to look only
-- Returns  {1 if they fit, how many more would, microseconds until they fit, microseconds until the window is empty}

local key = KEYS[1]
local cost, limit, period, is_counted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'

local now = clock.microseconds
local length = redis.call('LLEN', key)

local function at(index)
  return tonumber(redis.call('LINDEX', key, index)) or error('WRONGTYPE: no window')
end

local newest = length > 0 and at(-1) or 0
if newest > now + period then -- not by this clock: that of another server, an hour ahead, would block for an hour
  redis.call('DEL', key)
  length, newest = 0, 0
end
now = math.max(now, newest) -- keeps the list in order when the clock steps back

-- Find the first event that is still in the window by binary search.
local first, past = 0, length
while first < past do
  local middle = math.floor((first + past) / 2)
  if at(middle) <= now - period then first = middle + 1 else past = middle end
end

local live = length - first
if live + cost > limit then
  return {0, math.max(limit - live, 0), at(length - 1 - limit + cost) + period - now, newest + period - now}
end
if not is_counted then
  return {1, limit - live, 0, live > 0 and newest + period - now or 0}
end
if first > 0 then
  redis.call('LTRIM', key, first, -1)
end
local instant = string.format('%.0f', now)
for _ = 1, cost do
  redis.call('RPUSH', key, instant)
end
redis.call('PEXPIRE', key, math.ceil(period / 1000))
return {1, limit - live - cost, 0, period}
