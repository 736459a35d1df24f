-- Rates: of jobs with a limit, and of queues.
-- requires: coordination/limits/tokens, coordination/redis/clock, guarded, records
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

-- Give tokens back that take so long to come again.
function rates.give_back(key, span)
  local at = tonumber(call('GET', rates.key(key)))
  if at then call('SET', rates.key(key), string.format('%.0f', at - span), 'KEEPTTL') end
end

-- Whether a job said in this execution what it really spent.
function rates.was_spent(id, execution)
  return (records.get(id, 'spent') or ''):match('^(%S+) %d+$') == execution
end

-- A running job spent so many tokens and not what it cost, or what it said before.
function rates.correct(limit, id, execution, spent)
  local key, interval, capacity = limit[2], limit[3], limit[4]
  local before = rates.was_spent(id, execution) and tonumber(records.get(id, 'spent'):match('%d+$')) or limit.cost
  local at = math.min(rates.full_at(key, capacity) + (spent - before) * interval, clock.microseconds + capacity)
  redis.call('HSET', records.key(id), 'spent', execution .. ' ' .. string.format('%.0f', spent))
  if at <= clock.microseconds then return call('DEL', rates.key(key)) end
  call('SET', rates.key(key), string.format('%.0f', at), 'PX', math.ceil((at - clock.microseconds) / 1000))
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
