-- Mark a job as started, if the worker's claims still name its execution.
-- requires: coordination/redis/clock, jobs/events, jobs/records
--
-- KEYS[1]  the worker's claims    KEYS[2]  the job's record    KEYS[3]  RQ's record of the execution
-- KEYS[4]  RQ's set of the job's executions
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  the worker    ARGV[4]  now as RQ's text
-- Returns  1 if it was marked now, 0 if it has ended or was already marked

local claims, record, of_execution, executions = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, execution, worker, now_text = unpack(ARGV)

local YEAR = 31536000 -- until the job has ended, RQ's registry keeps it
local MARGIN = 15 -- seconds that RQ's readers see an execution after its timeout, if nothing deletes it

if redis.call('HGET', claims, id) ~= execution or records.is_callback(execution) then
  return 0
end
local status, queue, timeout, replaced = unpack(records.read(id, 'status', 'origin', 'timeout', 'replaced'))
if status ~= 'queued' and status ~= 'created' then
  return 0
end
redis.call('PERSIST', record) -- first, since a full memory refuses only a first write, and a cancel needs the mark
redis.call('HSET', record, 'status', 'started', 'worker_name', worker, 'started_at', now_text, 'last_heartbeat', now_text)
redis.call('HDEL', record, 'expires_at') -- it started in time, however often it has to run again
redis.pcall('ZADD', 'rq:wip:' .. (queue or ''), clock.second + YEAR, id .. ':' .. execution)
redis.pcall('HSET', of_execution, 'id', execution, 'created_at', clock.now, 'last_heartbeat', clock.now,
  'worker_name', worker)
local seconds = tonumber(timeout) or 0
local ttl = seconds >= 1 and seconds < YEAR and math.floor(seconds) + MARGIN or YEAR
redis.pcall('ZADD', executions, clock.second + ttl, execution)
redis.call('EXPIRE', of_execution, ttl)
redis.call('EXPIRE', executions, ttl)
if replaced then -- the command to stop it came before it ran, when nobody could obey
  redis.pcall('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = id}))
end
events.emit('started', id, queue or '', worker)
events.write()
return 1
