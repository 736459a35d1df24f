-- Callbacks of batches: they wait as deferred jobs until their batch ends.
-- requires: caller, coordination/redis/clock, events, queues, records
-- may use: ending, groups, singletons

local batch_callbacks = {}

-- Where a callback waits, if it does.
local function take(id)
  if not id or id == '' then return end
  local fields = records.read(id, 'origin', 'status', 'group', 'limits', 'expires')
  if not fields[1] or fields[2] ~= 'deferred' then return end
  redis.pcall('ZREM', 'rq:deferred:' .. fields[1], id)
  return fields
end

function batch_callbacks.enqueue(id)
  local fields = take(id)
  if not fields then return end
  local queue, _, group, needs, expires = unpack(fields)
  redis.call('HSET', records.key(id), 'status', 'queued', 'enqueued_at', caller.at)
  expires = tonumber(expires)
  if expires then redis.call('HSET', records.key(id), 'expires_at', string.format('%.6f', clock.now + expires)) end
  singletons.replace(queue, group, needs)
  queues.register(queue)
  groups.join(queue, group, id, 'RPUSH')
  events.emit('enqueued', id, queue)
end

-- Delete a callback that is not wanted.
function batch_callbacks.delete(id)
  if take(id) then ending.delete(id) end
end

return batch_callbacks
