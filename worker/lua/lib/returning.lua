-- Returning jobs that a worker loses to their queues.
-- requires: jobs/caller, jobs/events, jobs/queues, jobs/records
-- may use: jobs/callbacks, jobs/corrupt, jobs/counting, jobs/singletons

local returning = {}

returning.ids = {} -- of those that went back

-- The queue that a job came from, and whether its callback is due; false if its record is gone or corrupt, or somebody
-- else has recorded its end.
function returning.queue_of(id)
  local fields = records.read(id, 'origin', 'status')
  local queue, status = fields[1], fields[2]
  local is_pending = not status or status == 'queued' or status == 'started' or status == 'created'
  local is_due = queue and not is_pending and callbacks.due(id, status) ~= nil
  if not is_pending and not is_due then
    counting.note(id, counting.state_of(status))
    return false
  elseif not queue then
    if records.exists(id) then corrupt.set_aside(id, fields.err or 'the record names no queue') end
    return false
  end
  return queue, is_due
end

-- Put a job in front of its queue again. `verdict` is nothing if it can't have started; `needs` are its limits.
function returning.to_front(id, queue, verdict, is_due, needs)
  if is_due then return callbacks.postpone(id, queue) end
  if verdict and records.get(id, 'status') == 'started' then
    local event = verdict == 'returned' and 'returned' or 'rescued'
    events.emit(event, id, queue, caller.worker, {reason = verdict})
  end
  redis.call('HSET', records.key(id), 'status', 'queued', 'worker_name', '')
  queues.push(queue, id, 'LPUSH')
  if needs then singletons.goes_back(id, needs, 0) end
  returning.ids[#returning.ids + 1] = id
end

return returning
