-- Deferred jobs, which a batch enqueues: its callbacks wait for its end, and the nodes of a flow for others.
-- requires: caller, coordination/redis/clock, events, guarded, queues, records
-- may use: ending, groups, singletons

local deferring = {}

-- Where a job waits, if it is deferred: its queue, status, group, limits, expires, takes and enqueue_at_front. Otherwise
-- nothing, and the fields that were read. One that has run and waits for a signal is not what is meant.
function deferring.take(id)
  if not id or id == '' then return nil, {} end
  local fields = records.read(id, 'origin', 'status', 'group', 'limits', 'expires', 'takes', 'enqueue_at_front', 'waits')
  if not fields[1] or fields[2] ~= 'deferred' or fields[8] then return nil, fields end
  redis.pcall('ZREM', 'rq:deferred:' .. fields[1], id)
  return fields
end

-- Enqueue a job that was taken; `given` are more fields and values of its record.
function deferring.enqueue(id, fields, ...)
  local queue, _, group, needs, expires, _, at_front = unpack(fields, 1, 7)
  redis.call('HSET', records.key(id), 'status', 'queued', 'enqueued_at', caller.at, ...)
  expires = tonumber(expires)
  if expires then redis.call('HSET', records.key(id), 'expires_at', string.format('%.6f', clock.now + expires)) end
  singletons.replace(queue, group, needs)
  queues.register(queue)
  groups.join(queue, group, id, at_front == '1' and 'LPUSH' or 'RPUSH')
  events.emit('enqueued', id, queue)
end

-- Enqueue a callback, if it still waits.
function deferring.call_back(id)
  local fields = deferring.take(id)
  if fields then deferring.enqueue(id, fields) end
end

-- Delete a callback that is not wanted.
function deferring.delete(id)
  if deferring.take(id) then ending.delete(id) end
end

-- A job that was canceled, or is to run again, waits for others. Whether it does: its record may be gone.
function deferring.again(id, status)
  local queue, found = unpack(records.read(id, 'origin', 'status'))
  if not queue or found ~= status then return false end
  ending.undo(id, queue, 'deferred')
  redis.call('HDEL', records.key(id), 'waits')
  guarded.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  return true
end

return deferring
