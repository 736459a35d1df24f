-- Mark a job as started, if the worker's claims still name its execution.
--
-- KEYS[1]  the worker's claims    KEYS[2]  the job's record
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  the worker    ARGV[4]  now as RQ's text
-- Returns  1 if it was marked now, 0 if it has ended or was already marked

local id, execution, worker, now_text = unpack(ARGV)
if redis.call('HGET', KEYS[1], id) ~= execution then
  return 0
end
local fields = redis.pcall('HMGET', KEYS[2], 'status', 'origin')
if fields.err or fields[1] ~= 'queued' then
  return 0
end
redis.call('HSET', KEYS[2], 'status', 'started', 'worker_name', worker, 'started_at', now_text, 'last_heartbeat', now_text)
redis.call('PERSIST', KEYS[2])
redis.pcall('ZADD', 'rq:wip:' .. (fields[2] or ''), script_began[1] + 31536000, id .. ':' .. execution)
emit('started', id, fields[2] or '', worker)
write_events()
return 1
