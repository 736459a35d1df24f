-- The pace of a slow domain, as a string: microseconds from one mail to the next, when the next may go, and when that
-- goes which is last in the line of those that wait.
-- requires: coordination/redis/clock

local paces = {}

paces.SLOWEST = 600000000 -- from one mail to the next
paces.LONGEST = 3600000000 -- wait

local now = clock.microseconds

-- The three numbers; nothing if the domain isn't slow, or its key holds something else.
function paces.read(key)
  local text = redis.call('TYPE', key).ok == 'string' and redis.call('GET', key) or ''
  local interval, next_at, line_at = string.match(text, '^(%d+) (%d+) (%d+)$')
  if not interval then return end
  local latest = now + paces.LONGEST
  return math.min(tonumber(interval), paces.SLOWEST), math.min(tonumber(next_at), latest), math.min(tonumber(line_at), latest)
end

function paces.text(interval, next_at, line_at) return string.format('%.0f %.0f %.0f', interval, next_at, line_at) end

return paces
