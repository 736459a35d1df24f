-- Token buckets, by GCRA: a bucket is one number, the time at which it is full again. All numbers are whole microseconds
-- below 2^53, where Lua's numbers are exact and Redis writes all digits. A full bucket needs no key.
-- requires: coordination/redis/clock

local tokens = {}

local now = clock.microseconds

-- When a bucket that fills in `capacity` is full, and when according to its text; nothing if that is no such time.
function tokens.full_at(text, capacity)
  local at = tonumber(text or 0)
  if not (at and at >= 0) then return end -- false for NaN too
  -- Never fuller than full, nor emptier than empty, as it could seem after the rate or the clock has changed.
  return math.min(math.max(at, now), now + capacity), at
end

-- How long until so many tokens are there, each of which takes `interval`; 0 or less if they are.
function tokens.wait(full_at, capacity, interval, count) return full_at + count * interval - capacity - now end

-- How many tokens are there.
function tokens.left(full_at, capacity, interval) return math.floor((now + capacity - full_at) / interval) end

-- Take tokens, even if they are not there. When the bucket is full then.
function tokens.take(key, full_at, interval, count)
  local after = full_at + count * interval
  redis.call('SET', key, string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
  return after
end

return tokens
