-- Deferred jobs, which a batch enqueues: its callbacks wait for its end, and the nodes of a flow for others.
-- requires: caller, coordination/redis/clock, events, guarded, queues, records
-- may use: ending, groups, singletons

local deferring = {}

local call = guarded.call
local found_in, plain = {}, {} -- by queue, the jobs that this call enqueues, and those of them that need no more

-- The queue, status, group, limits, expires, takes, enqueue_at_front, waits and priority of a job, if it is deferred.
-- Otherwise nothing, and what was read. One that has run and waits for a signal is not what is meant.
function deferring.find(id)
  if not id or id == '' then return nil, {} end
  local fields = records.read(id, 'origin', 'status', 'group', 'limits', 'expires', 'takes', 'enqueue_at_front', 'waits',
    'priority')
  if not fields[1] or fields[2] ~= 'deferred' or fields[8] then return nil, fields end
  return fields
end

-- A job is deferred no more.
function deferring.leave(id, fields) call('ZREM', 'rq:deferred:' .. fields[1], id) end

-- Enqueue a job that was found; `given` are more fields and values of its record. The script has to push what it
-- enqueues.
function deferring.enqueue(id, fields, ...)
  local queue, _, group, needs, expires, _, at_front, _, priority = unpack(fields, 1, 9)
  redis.call('HSET', records.key(id), 'status', 'queued', 'enqueued_at', caller.at, ...)
  expires = tonumber(expires)
  if expires then redis.call('HSET', records.key(id), 'expires_at', string.format('%.6f', clock.now + expires)) end
  local all, some = found_in[queue] or {}, plain[queue] or {}
  found_in[queue], plain[queue], all[#all + 1] = all, some, id
  if group or priority or at_front == '1' then
    singletons.replace(queue, group, needs)
    groups.join(queue, group, id, at_front == '1' and 'LPUSH' or 'RPUSH')
  else
    some[#some + 1] = id
  end
  events.emit('enqueued', id, queue)
end

-- Push what this call has enqueued to its queues.
function deferring.push()
  for queue, all in pairs(found_in) do
    call('ZREM', 'rq:deferred:' .. queue, unpack(all))
    queues.register(queue)
    if #plain[queue] > 0 then queues.push_all(queue, plain[queue], 'RPUSH') end
  end
  found_in, plain = {}, {}
end

-- Enqueue a callback, if it still waits.
function deferring.call_back(id)
  local fields = deferring.find(id)
  if not fields then return end
  deferring.enqueue(id, fields)
  deferring.push()
end

-- Delete a callback that is not wanted.
function deferring.delete(id)
  local fields = deferring.find(id)
  if not fields then return end
  deferring.leave(id, fields)
  ending.delete(id)
end

-- A job that was canceled, or is to run again, waits for others. Whether it does: its record may be gone.
function deferring.again(id, status)
  local queue, found = unpack(records.read(id, 'origin', 'status'))
  if not queue or found ~= status then return false end
  ending.undo(id, queue, 'deferred')
  redis.call('HDEL', records.key(id), 'waits', 'waits_since')
  call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  return true
end

return deferring
