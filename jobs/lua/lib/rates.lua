-- Rates: of jobs with a limit, and of queues.
-- requires: coordination/limits/tokens, coordination/redis/clock, guarded
--
-- pm:rate:jobs:<key>  a token bucket (coordination/limits/lua/lib/tokens.lua)

local rates = {}

local call = guarded.call

function rates.key(key) return 'pm:rate:jobs:' .. key end

-- When a bucket is full.
function rates.full_at(key, capacity)
  local at, found = tokens.full_at(call('GET', rates.key(key)), capacity)
  if not at then return clock.microseconds end
  if found > at then -- left by a slower rate, or garbage: it would never end
    call('SET', rates.key(key), string.format('%.0f', at), 'PX', math.ceil(capacity / 1000))
  end
  return at
end

-- Give a token back.
function rates.give_back(key, interval)
  local at = tonumber(call('GET', rates.key(key)))
  if at then call('SET', rates.key(key), string.format('%.0f', at - interval), 'KEEPTTL') end
end

-- Those of some queues that have a rate, each with how many of its jobs may start now; queues that may start none are
-- added to `paused`. And the time at which the first of these may start one.
function rates.rooms(names, paused)
  local rooms, soonest = {}, math.huge
  local settings = #names > 0 and call('HMGET', 'pm:queue-rates', unpack(names)) or {}
  for i, queue in ipairs(names) do
    local interval, capacity = (settings[i] or ''):match('^([1-9]%d*) ([1-9]%d*)')
    if interval and not rooms[queue] then
      local at = rates.full_at('queue:' .. queue, tonumber(capacity))
      local free = tokens.left(at, capacity, interval)
      rooms[queue] = {free = free, begun = 0, at = at, interval = interval}
      if free < 1 then
        paused[#paused + 1] = queue
        soonest = math.min(soonest, (at + interval - capacity) / 1000000)
      end
    end
  end
  return rooms, soonest
end

-- Take the tokens of the jobs that the claim has counted, by queue.
function rates.begin(rooms)
  for queue, room in pairs(rooms) do
    if room.begun > 0 then tokens.take(rates.key('queue:' .. queue), room.at, room.interval, room.begun) end
  end
end

return rates
