-- Canceling: a job that has not started ends, and its record is kept for a while. Its batch is the caller's to count.
-- requires: caller, coordination/redis/clock, events, guarded, queues, records
-- may use: callbacks, claimants, groups, scheduled, uniqueness

local canceling = {}

local call = guarded.call
local KEPT = 86400 -- seconds for which a canceled job can be read and retried

-- Remove a job of this status from where it waits; in how many places it was.
function canceling.withdraw(id, status, queue, group, batch)
  if status == 'scheduled' then
    local is_scheduled = call('ZREM', scheduled.key(queue), id)
    return is_scheduled == 0 and callbacks.due(id, status) and callbacks.leave(id, queue, true) or is_scheduled
  end
  local places = queues.remove(queue, id)
  if group then places = places + groups.drop(queue, group, id) end
  if places == 0 and batch then places = call('LREM', 'pm:batch:' .. batch .. ':held', 1, id) end
  return places
end

-- Keep the record of a canceled job for a while.
function canceling.expire(id)
  local ttl = tonumber(records.get(id, 'failure_ttl')) or KEPT
  redis.call('EXPIRE', records.key(id), ttl >= 1 and ttl < KEPT and math.floor(ttl) or KEPT)
end

-- Write the end of a job. If it was not withdrawn, claims pass its id over.
function canceling.finish(id, queue, reason)
  local record = records.key(id)
  redis.call('HSET', record, 'status', 'canceled', 'ended_at', caller.at or '')
  canceling.expire(id)
  uniqueness.leave(id)
  call('ZADD', 'rq:canceled:' .. queue, clock.second, id)
  events.emit('canceled', id, queue, nil, reason and {reason = reason} or nil)
end

-- Delete what a canceled job left, before its id is used again: the id may still be where it waited.
function canceling.forget(id)
  local queue, group, batch = unpack(records.read(id, 'origin', 'group', 'batch'))
  if queue then
    canceling.withdraw(id, 'queued', queue, group, batch)
    claimants.withdraw(id)
    call('ZREM', 'rq:canceled:' .. queue, id)
  end
  redis.call('DEL', records.key(id), 'rq:results:' .. id, 'pm:progress:' .. id)
end

return canceling
