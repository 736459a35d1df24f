-- Purging: delete jobs that wait, with all that is kept of them.
-- requires: events, records
-- may use: batches, callbacks, groups, uniqueness

local purging = {}

-- Delete a job that was taken from where it waits; one that waits no more is left alone. 1 if it was deleted, else 0.
function purging.delete(id, queue)
  local status, group = unpack(records.read(id, 'status', 'group'))
  if callbacks.due(id, status) then
    callbacks.give_up(id, queue) -- the job itself has ended
    return 0
  end
  if group then groups.leave(queue, group, id) end -- the next of its group becomes the head
  local waits = records.is_pending(status or 'queued') and status ~= 'started' or status == 'created'
  if not waits then return 0 end
  uniqueness.leave(id)
  batches.ended(id, 'c')
  local record = records.key(id)
  local deleted = redis.call('DEL', record)
  redis.call('DEL', 'rq:results:' .. id, 'pm:progress:' .. id, record .. ':dependents')
  if deleted == 1 then events.emit('canceled', id, queue, nil, {reason = 'purged'}) end
  return deleted
end

return purging
