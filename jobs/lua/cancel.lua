-- Cancel a job that has not started: remove it from where it waits, and keep its record as canceled.
--
-- KEYS[1]  the job's record
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "canceled" if it was, "" if there is no such job, "claimed" if a worker is about to start it,
--          otherwise its unchanged status

local record, id = KEYS[1], ARGV[1]
local fields = redis.pcall('HMGET', record, 'status', 'origin', 'data', 'group', 'batch')
if fields.err or not fields[3] then
  return ''
end
local status, queue = fields[1] or '', fields[2] or ''

local taken = 0
if status == 'queued' then
  taken = redis.call('LREM', 'rq:queue:' .. queue, 1, id)
  if fields[4] then
    taken = taken + groups.drop(queue, fields[4], id)
  end
  if taken == 0 and fields[5] then
    taken = call('LREM', 'pm:batch:' .. fields[5] .. ':held', 1, id)
  end
elseif status == 'scheduled' then
  taken = redis.call('ZREM', 'rq:scheduled:' .. queue, id)
else
  return status
end
if taken == 0 then
  return 'claimed'
end
own.at = ARGV[2]
redis.call('HSET', record, 'status', 'canceled', 'ended_at', ARGV[2])
redis.call('ZADD', 'rq:canceled:' .. queue, script_began[1], id)
emit('canceled', id, queue)
batches.ended(id, 'c')
write_events()
return 'canceled'
