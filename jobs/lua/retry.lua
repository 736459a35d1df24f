-- Enqueue a failed, stopped or canceled job again. Its deaths start from zero, its retries do not.
-- requires: batches, events, groups, guarded, queues, records
--
-- KEYS[1]  the job's record    KEYS[2]  the places of unique jobs
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "retried" if it was, "" if there is no such job, "held <id>" if another job holds its place, otherwise
--          its unchanged status

local record, places = KEYS[1], KEYS[2]
local id, now_text = ARGV[1], ARGV[2]

local call = guarded.call
local status, queue, data, group, unique = unpack(records.read(id, 'status', 'origin', 'data', 'group', 'unique'))
if not queue or not data then
  return ''
end
if status ~= 'failed' and status ~= 'stopped' and status ~= 'canceled' then
  return status or ''
end

if unique then
  local holder = (redis.call('HGET', places, unique) or ''):match('^%S+')
  if holder and holder ~= id and records.is_pending(records.get(holder, 'status')) then
    return 'held ' .. holder
  end
  redis.call('HSET', places, unique, id .. ' 0')
end

groups.join(queue, group, id, 'RPUSH') -- first, since a key of another type fails here
redis.call('HSET', record, 'status', 'queued', 'enqueued_at', now_text, 'ended_at', '', 'worker_name', '')
redis.call('HDEL', record, 'deaths', 'expires_at')
redis.call('PERSIST', record)
redis.pcall('PERSIST', 'rq:results:' .. id)
call('ZREM', 'rq:failed:' .. queue, id)
call('ZREM', 'rq:canceled:' .. queue, id)
queues.register(queue)
events.emit('enqueued', id, queue)
batches.ended(id, 'p')
events.write()
return 'retried'
