-- Weights: limits of whose slots a job takes as many as it costs. Groups get them in the order in which they came, or
-- small jobs could keep a large one waiting for ever. Slots of hosts (hosts.lua) have keys of their own, but one line.
-- requires: groups, guarded
--
-- pm:weights:<key>  a hash of a holder's job to the slots that it holds beyond the first, if any, and "" to their sum
-- pm:turn:<key>     exists for a moment after the first blocked group was unblocked, so that it finds its slots free

local weights = {}

local TURN_MS, MOST_LOOKS, MOST_COUNTED = 5000, 64, 1000
local call = guarded.call

-- A job holds so many slots beyond the first, and all together `sum`, which is 0 if no job needs the hash.
local function write(key, id, more, sum)
  local hash = 'pm:weights:' .. key
  if sum <= 0 then return call('UNLINK', hash) end
  redis.call('HSET', hash, '', string.format('%.0f', sum))
  if more > 0 then redis.call('HSET', hash, id, string.format('%.0f', more)) else redis.call('HDEL', hash, id) end
end

local function number_of(text) return text and #text < 16 and text:match('^%d+$') and tonumber(text) end

-- Count the slots beyond the first again, of jobs that hold one. The sum; of too many jobs, more than there can be.
function weights.recount(key)
  local hash, sum = 'pm:weights:' .. key, 0
  if call('HLEN', hash) > MOST_COUNTED then return math.huge end
  local all = call('HGETALL', hash)
  for i = 1, #all, 2 do
    local is_held = all[i] ~= '' and call('HEXISTS', 'pm:holders:' .. key, all[i]) == 1
    local more = is_held and number_of(all[i + 1])
    if more then sum = sum + more else redis.call('HDEL', hash, all[i]) end
  end
  write(key, '', sum, sum)
  return sum
end

local function sum_of(key)
  local text = call('HGET', 'pm:weights:' .. key, '')
  return text and (number_of(text) or weights.recount(key)) or 0
end

-- How many of `most` slots are free.
function weights.free(key, most)
  local holders = call('HLEN', 'pm:holders:' .. key)
  if holders > 0 then return most - holders - sum_of(key) end
  redis.call('UNLINK', 'pm:weights:' .. key)
  return most
end

-- A job that is among the holders costs so many slots.
function weights.take(key, id, cost)
  local before = number_of(call('HGET', 'pm:weights:' .. key, id)) or 0
  if before ~= cost - 1 then write(key, id, cost - 1, sum_of(key) + cost - 1 - before) end
end

-- A job is among the holders no more.
function weights.drop(key, id) weights.take(key, id, 1) end

-- A group whose job was claimed, or waits for something else, waits for slots no more.
function weights.leave(key, name)
  if call('ZREM', 'pm:blocked:' .. key, name) == 1 then redis.call('DEL', 'pm:turn:' .. key) end
end

-- Where a blocked group is: "waiting", "listed" if its head is in its queue's list, or nothing if it has no job.
function weights.place_of(name)
  local queue, group = name:match('^([^\n]*)\n(.*)$')
  local head = queue and call('HGET', 'pm:groups:' .. queue, group)
  return head == '' and 'waiting' or head and 'listed'
end

-- Unblock the first group that waits. It keeps its place until one of its jobs is claimed.
function weights.unblock_next(key)
  for _, name in ipairs(call('ZRANGE', 'pm:blocked:' .. key, 0, MOST_LOOKS - 1)) do
    local place = weights.place_of(name)
    if place == 'waiting' and groups.unblock(name) then
      return redis.call('SET', 'pm:turn:' .. key, '', 'PX', TURN_MS)
    elseif not place then
      call('ZREM', 'pm:blocked:' .. key, name)
    elseif redis.call('EXISTS', 'pm:turn:' .. key) == 1 then
      return
    end
  end
end

-- Whether a group may take slots: no other came before it. One that was unblocked and doesn't come, since its queue is
-- paused, say, is passed over after a moment.
function weights.is_turn(key, name)
  for _ = 1, MOST_LOOKS do
    local first = call('ZRANGE', 'pm:blocked:' .. key, 0, 0)[1]
    if not first or first == name then return true end
    local place = weights.place_of(first)
    if place == 'waiting' then weights.unblock_next(key) end -- it may have been overlooked
    if place then return place == 'listed' and redis.call('EXISTS', 'pm:turn:' .. key) == 0 end
    call('ZREM', 'pm:blocked:' .. key, first)
  end
  return false
end

return weights
