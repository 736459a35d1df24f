-- Enqueue a failed, stopped or canceled job again. Its deaths start from zero, its retries do not.
--
-- KEYS[1]  the job's record    KEYS[2]  the set of queues    KEYS[3]  the places of unique jobs (enqueue.lua)
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "retried" if it was, "" if there is no such job, "held <id>" if another job holds its place, otherwise
--          its unchanged status

local record, id = KEYS[1], ARGV[1]
local fields = redis.pcall('HMGET', record, 'status', 'origin', 'data', 'group', 'unique')
if fields.err or not fields[2] or not fields[3] then
  return ''
end
local status, queue, _, group, unique = unpack(fields)
if status ~= 'failed' and status ~= 'stopped' and status ~= 'canceled' then
  return status or ''
end

if unique then
  local holder = (redis.call('HGET', KEYS[3], unique) or ''):match('^%S+')
  if holder and holder ~= id and is_pending(redis.pcall('HGET', 'rq:job:' .. holder, 'status')) then
    return 'held ' .. holder
  end
  redis.call('HSET', KEYS[3], unique, id .. ' 0')
end

groups.join(queue, group, id, 'RPUSH') -- first, since a key of another type fails here
redis.call('HSET', record, 'status', 'queued', 'enqueued_at', ARGV[2], 'ended_at', '', 'worker_name', '')
redis.call('HDEL', record, 'deaths', 'expires_at')
redis.call('PERSIST', record)
redis.pcall('PERSIST', 'rq:results:' .. id)
call('ZREM', 'rq:failed:' .. queue, id)
call('ZREM', 'rq:canceled:' .. queue, id)
call('SADD', KEYS[2], 'rq:queue:' .. queue)
emit('enqueued', id, queue)
batches.ended(id, 'p')
write_events()
return 'retried'
