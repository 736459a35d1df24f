-- Outcomes: what one writes to the records. worker/process/outcome.py describes an outcome.
-- requires: coordination/redis/clock, jobs/caller, jobs/ending, jobs/events, jobs/gathered, jobs/queues
-- requires: jobs/records
-- may use: jobs/callbacks, jobs/groups, jobs/scheduled, jobs/steps

local outcomes = {}

local now, emit = clock.now, events.emit
local ENDS = {'finished', 'failed', 'stopped', 'retried', 'failed'} -- by RQ's number for a result

outcomes.due = {} -- the ids of jobs whose callbacks are due
outcomes.has_blocked, outcomes.has_scheduled = false, false

local function place(id, queue, status, ttl, front, delay)
  if status == 'canceled' then return end
  local group = status == 'queued' and delay > 0 and records.get(id, 'group')
  if group then
    groups.block(queue, group, id, nil, now + delay) -- its lock is taken, so the next job would not get it either
    outcomes.has_blocked = true
  elseif status == 'queued' then
    queues.push(queue, id, front and 'LPUSH' or 'RPUSH')
  elseif status == 'scheduled' then
    gathered.add('ZADD', scheduled.key(queue), string.format('%.6f', now + delay), id)
    scheduled.due(queue, now + delay)
    outcomes.has_scheduled = true
  else
    ending.register(id, queue, status, ttl)
  end
end

-- The fields of a job that goes back. When a worker first did not know what to call is by this server's clock.
local function stamped(fields)
  if fields[1] == 'unknown_since' then fields[2] = string.format('%.6f', now) end
  return unpack(fields)
end

-- Begin a job's callbacks, if it has some for this end. The status until they are done, or nothing.
local function begin_callbacks(kind, id, status, ttl, front, delay)
  local waits, to, value = status, 'end', ttl
  if not ending.is_end(status) then
    waits, to, value = 'scheduled', 'at', string.format('%.6f', now + delay)
    if status == 'queued' then to, value = 'queue', front and 'front' or 'back' end
  end
  return callbacks.begin(id, waits, kind, to, value) and waits or nil
end

-- Write the outcome's fields in turn; `callback` is the kind of the callback that is due then, or "".
function outcomes.write(callback, id, execution, queue, status, ttl, kind, started, ended, began, stopped, name, value,
  fields, front, delay, is_marked)
  local repeats = kind == 1 and status ~= 'finished'
  local is_kept = status ~= 'finished' or ttl ~= 0
  local waits = callback ~= '' and status ~= 'canceled' and begin_callbacks(callback, id, status, ttl, front, delay)
  local is_written = true
  if waits then outcomes.due[#outcomes.due + 1] = id end
  if not waits and not is_kept then
    ending.delete(id)
  elseif kind == 0 then
    is_written = ending.write(id, status, stamped(fields))
  else
    is_written = ending.write(id, waits or status, 'started_at', started, 'ended_at', ended, 'worker_name', caller.worker,
      unpack(fields))
  end
  if is_written and (waits or is_kept) then
    local keep = waits and callbacks.keep(ttl) or ttl
    if kind > 0 and (waits or ttl ~= 0 or not repeats) then
      ending.result(id, execution, kind, keep, kind > 1 or repeats, 'execution_started_at', began,
        'execution_ended_at', stopped, name, value)
    end
    local has_steps = fields[1] == 'steps' or ending.is_end(status) and kind > 1
    if kind > 0 then ending.keep(id, ending.is_end(status) and keep or -1, has_steps) end
    if repeats and has_steps then steps.forget(id) end
    if not waits or ending.is_end(status) and is_kept then place(id, queue, status, ttl, front, delay) end
  end
  if status == 'canceled' then
    emit('canceled', id, queue, caller.worker)
  elseif kind == 0 and delay == 0 and is_marked then
    emit('returned', id, queue, caller.worker)
  elseif kind > 0 then
    emit(ENDS[kind], id, queue, caller.worker,
      {started = tonumber(began), ended = tonumber(stopped), delay = kind == 4 and delay or nil})
  end
end

-- Record a step of a job's callbacks as done; "due" leaves it to a later claim, after a delay.
function outcomes.settle(id, execution, queue, status, fields, delay)
  if not callbacks.is_held(id, execution) then return end -- it was enqueued again, and another end of it is due
  if status == 'settled' then
    if callbacks.settle(id, queue) then outcomes.due[#outcomes.due + 1] = id end
  elseif callbacks.due(id, records.get(id, 'status')) then
    if #fields > 0 then redis.call('HSET', records.key(id), stamped(fields)) end
    callbacks.postpone(id, queue, delay)
    outcomes.has_blocked = true
  end
  outcomes.has_scheduled = true -- it may be
end

return outcomes
