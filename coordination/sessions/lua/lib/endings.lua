-- The instant at which all sessions and refresh tokens of a user were last ended, in Unix microseconds: what began
-- by then is over, whether or not its key was found and deleted.
-- requires: coordination/redis/clock

local endings = {}

local NEVER_ENDS = 2 ^ 53 -- from here on a number in Lua isn't exact

-- The instant, 0 if there is none. Garbage ends everything: it may have taken the place of an instant.
function endings.last(key)
  local text = redis.pcall('GET', key)
  if not text then return 0 end
  local instant = type(text) == 'string' and text:match('^%d+$') and tonumber(text)
  return instant and instant < NEVER_ENDS and instant or NEVER_ENDS
end

-- End all that has begun by now; returns the instant. `ttl_ms` is how long the longest of it may live.
function endings.set(key, ttl_ms)
  local last = endings.last(key)
  local instant = clock.microseconds
  if last < NEVER_ENDS then instant = math.max(instant, last + 1) end -- the clock may have stepped back
  redis.call('DEL', key) -- behind a deletion, not even a full memory refuses a write
  redis.call('SET', key, string.format('%.0f', instant), 'PX', ttl_ms)
  return instant
end

-- The instant at which something begins now, as text: later than the last end.
function endings.beginning(key, ttl_ms)
  local last = endings.last(key)
  if last == NEVER_ENDS then last = endings.set(key, ttl_ms) end
  return string.format('%.0f', math.max(clock.microseconds, last + 1))
end

-- Whether what began at that instant, as text, has been ended.
function endings.is_over(key, beginning) return (tonumber(beginning) or 0) <= endings.last(key) end

return endings
