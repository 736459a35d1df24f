-- Let a scheduled job run now, as if its time had come; it may wait for a retry.
-- requires: caller, events, guarded, queues, records
-- may use: batches, groups, scheduled, singletons
--
-- KEYS[1]  the job's record
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "promoted" if it goes to its queue, "" if there is no such job, "callback" if it is scheduled once its callback
--          is done, "sleeps" if it sleeps in a step, otherwise its unchanged status

local record = KEYS[1]
local id, now_text = ARGV[1], ARGV[2]

local status, queue, data, group, needs, attempts, unknown_since, at_front, waits, has_steps,
  enqueued_at = unpack(
  records.read(id, 'status', 'origin', 'data', 'group', 'limits', 'attempts', 'unknown_since', 'enqueue_at_front', 'waits',
    'steps', 'enqueued_at')
)
if not queue or not data then
  return ''
end
if enqueued_at == now_text then return 'promoted' end -- this call is sent again
if status ~= 'scheduled' then return status or '' end
if waits and waits ~= '' then return 'sleeps' end
if not guarded.call('ZSCORE', scheduled.key(queue), id) then return 'callback' end

caller.at = now_text
queues.make_way(queue)
redis.call('HSET', record, 'status', 'queued', 'enqueued_at', now_text)
redis.call('ZREM', scheduled.key(queue), id)
local is_new = not attempts and not unknown_since and not has_steps
if group and is_new then singletons.replace(queue, group, needs) end
groups.join(queue, group, id, at_front == '1' and 'LPUSH' or 'RPUSH')
queues.register(queue)
events.emit('promoted', id, queue)
batches.count_noted()
events.write()
return 'promoted'
