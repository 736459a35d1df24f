-- Cancel a job that has not started: remove it from where it waits, and keep its record as canceled.
-- requires: batches, coordination/redis/clock, events, groups, guarded, quarantine, queues, records, scheduled
--
-- KEYS[1]  the job's record
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "canceled" if it was, "" if there is no such job, "claimed" if a worker is about to start it,
--          otherwise its unchanged status

local record = KEYS[1]
local id, now_text = ARGV[1], ARGV[2]

local status, queue, data, group, batch = unpack(records.read(id, 'status', 'origin', 'data', 'group', 'batch'))
if not data then
  return ''
end
status, queue = status or '', queue or ''

local taken = 0
if status == 'queued' then
  taken = queues.remove(queue, id)
  if group then
    taken = taken + groups.drop(queue, group, id)
  end
  if taken == 0 and batch then
    taken = guarded.call('LREM', 'pm:batch:' .. batch .. ':held', 1, id)
  end
elseif status == 'scheduled' then
  taken = guarded.call('ZREM', scheduled.key(queue), id)
else
  return status
end
if taken == 0 then
  return 'claimed'
end
quarantine.called(now_text)
redis.call('HSET', record, 'status', 'canceled', 'ended_at', now_text)
guarded.call('ZADD', 'rq:canceled:' .. queue, clock.second, id)
events.emit('canceled', id, queue)
batches.ended(id, 'c')
events.write()
return 'canceled'
