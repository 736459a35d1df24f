-- Withdrawal: a job is taken from where it waits.
-- requires: guarded, queues, records
-- may use: callbacks, claimants, groups, scheduled

local withdrawal = {}

-- Remove a job of this status from where it waits; in how many places it was.
function withdrawal.remove(id, status, queue, group, batch)
  if status == 'scheduled' then
    local is_scheduled = guarded.call('ZREM', scheduled.key(queue), id)
    return is_scheduled == 0 and callbacks.due(id, status) and callbacks.leave(id, queue, true) or is_scheduled
  end
  if status == 'deferred' then return guarded.call('ZREM', 'rq:deferred:' .. queue, id) end
  local places = queues.remove(queue, id)
  if group then places = places + groups.drop(queue, group, id) end
  if places == 0 and batch then places = guarded.call('LREM', 'pm:batch:' .. batch .. ':held', 1, id) end
  return places
end

-- Remove a canceled job from wherever its id was left.
function withdrawal.forget(id)
  local queue, group, batch = unpack(records.read(id, 'origin', 'group', 'batch'))
  if not queue then return end
  withdrawal.remove(id, 'queued', queue, group, batch)
  claimants.withdraw(id)
  guarded.call('ZREM', 'rq:canceled:' .. queue, id)
end

-- A purge took an id from where it waited. Whether it is that of a job which waits for nothing else.
function withdrawal.is_purged(id, queue)
  local status, group = unpack(records.read(id, 'status', 'group'))
  if callbacks.due(id, status) then
    callbacks.give_up(id, queue) -- the job itself has ended
    return false
  end
  if group then groups.leave(queue, group, id) end -- the next of its group becomes the head
  return records.is_pending(status or 'queued') and status ~= 'started' or status == 'created'
end

return withdrawal
