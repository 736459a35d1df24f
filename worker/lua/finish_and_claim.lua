-- Hand in the outcomes of one batch and take the jobs of the next, in one atomic step.
--
-- KEYS[1]  the worker's claims: a hash of job id to execution id
-- KEYS[2]  the worker's waiting list: ids that a blocking move brought here
-- KEYS[3]  the worker's RQ hash    KEYS[4]  the leases    KEYS[5]  the quarantine    KEYS[6]  rq:suspended
-- KEYS[7+] the queues' lists, in the order in which they are served
-- ARGV[1]  msgpack: [claim id, jobs wanted, worker, now as RQ's text, lease in seconds, [outcome, ...]]
--          an outcome is the array of worker/outcome.py's Outcome
-- Returns  [ids of stale outcomes, ids with dependents to enqueue, [job, ...], 1 while all workers are suspended]
--          a job is [id, execution id, [queue, then each of FIELDS below, as text or nothing]]
--
-- An outcome counts only while the claims name its execution: a worker that lost its lease meanwhile
-- changes nothing. Sent again with the same claim id, the script returns the same jobs and hands in
-- nothing a second time, so that a lost reply loses and doubles nothing.

local claims = KEYS[1]
local claim_id, want, worker, now_text, lease, outcomes = unpack(cmsgpack.unpack(ARGV[1]))
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local again = redis.call('HGET', claims, '.claim') == claim_id
local suspended = redis.call('EXISTS', KEYS[6])
local stale, parents, jobs = {}, {}, {}

local GONE_SECONDS = 60 -- how long a re-sent enqueue may come after a job that left no record
local STARTED_SCORE = math.floor(now + 31536000) -- so far off that RQ's clean-up never takes a claimed job for abandoned
local FIELDS = {'data', 'timeout', 'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals', 'attempts',
  'enqueue_at_front_on_retry', 'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks', 'repeats_left'}

local function set_aside(id, reason)
  redis.call('RPUSH', KEYS[5], cjson.encode({job_id = id, reason = reason, worker = worker, at = now_text}))
  redis.call('LTRIM', KEYS[5], -10000, -1)
end

-- What all jobs of a batch write to one key is gathered here, and written by one command each.
local gathered = {ZADD = {}, ZREM = {}, HDEL = {}, HSET = {}}

local function gather(command, key, first, second)
  local values = gathered[command][key] or {}
  gathered[command][key] = values
  values[#values + 1] = first
  values[#values + 1] = second
end

local function write_gathered()
  for command, keys in pairs(gathered) do
    for key, values in pairs(keys) do
      local written = redis.pcall(command, key, unpack(values))
      if type(written) == 'table' and written.err then
        set_aside(key, written.err)
      end
    end
  end
end

local function ends(status) return status == 'finished' or status == 'failed' end

local function place(id, queue, status, ttl, front, delay)
  if status == 'queued' then
    redis.call(front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
  elseif status == 'scheduled' then
    gather('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', now + delay), id)
  else
    gather('ZADD', 'rq:' .. status .. ':' .. queue, ttl < 0 and '+inf' or math.floor(now + ttl), id)
  end
end

local function finish(id, execution, queue, status, ttl, fields, result, front, delay)
  local record, results = 'rq:job:' .. id, 'rq:results:' .. id
  local found = redis.call('EXISTS', record, record .. ':dependents')
  if ends(status) and found == 2 then
    parents[#parents + 1] = id
  end
  if found == 0 or status == 'settled' then
    return
  elseif ends(status) and ttl >= 0 and ttl < GONE_SECONDS then
    redis.call('SET', 'pm:gone:' .. id, redis.call('HGET', record, 'call') or '', 'EX', GONE_SECONDS)
  end
  if status == 'finished' and ttl == 0 then
    redis.call('DEL', record, results)
    return
  end
  redis.call('HSET', record, 'status', status, unpack(fields))
  if #result > 0 then
    local added = redis.pcall('XADD', results, 'MAXLEN', '~', 10, '*', unpack(result))
    if added.err then
      set_aside(id, added.err)
    elseif ttl > 0 then
      redis.call('EXPIRE', results, ttl)
    end
  end
  if ttl > 0 and ends(status) then
    redis.call('EXPIRE', record, ttl)
  end
  place(id, queue, status, ttl, front, delay)
end

local counts, seconds = {}, 0
for _, outcome in ipairs(outcomes) do
  local id, execution, queue, status = unpack(outcome, 1, 4)
  if redis.call('HGET', claims, id) == execution then
    finish(unpack(outcome, 1, 9))
    gather('HDEL', claims, id)
    gather('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
    counts[outcome[10]] = (counts[outcome[10]] or 0) + 1
    seconds = seconds + outcome[11]
  elseif not again then
    stale[#stale + 1] = id
  elseif ends(status) and redis.call('EXISTS', 'rq:job:' .. id .. ':dependents') == 1 then
    parents[#parents + 1] = id
  end
end
for counter, count in pairs(counts) do
  if counter ~= '' then
    redis.call('HINCRBY', KEYS[3], counter, count)
  end
end
if seconds > 0 then
  redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', string.format('%.6f', seconds))
end
write_gathered()
gathered = {ZADD = {}, HSET = {}}

local function take(id, execution)
  local values = redis.pcall('HMGET', 'rq:job:' .. id, 'origin', unpack(FIELDS))
  if values.err then
    return set_aside(id, values.err)
  elseif not values[2] then
    -- A record that expired or was deleted while its id waited is no loss; half a record is.
    return redis.call('EXISTS', 'rq:job:' .. id) == 1 and set_aside(id, 'the record holds no data')
  end
  jobs[#jobs + 1] = {id, execution, values}
  return values[1] or ''
end

local function claim(list)
  local ids = want > #jobs and redis.pcall('LPOP', list, want - #jobs) or {}
  if ids.err then
    set_aside(list, ids.err)
    redis.call('RENAME', list, 'pm:broken:' .. list)
    return
  end
  for _, id in ipairs(ids) do
    local execution = claim_id .. '-' .. (#jobs + 1)
    local queue = take(id, execution)
    if queue then
      redis.call('HSET', 'rq:job:' .. id, 'status', 'started', 'worker_name', worker,
        'started_at', now_text, 'last_heartbeat', now_text)
      redis.call('PERSIST', 'rq:job:' .. id)
      gather('HSET', claims, id, execution)
      gather('ZADD', 'rq:wip:' .. queue, STARTED_SCORE, id .. ':' .. execution)
    end
  end
end

if again then
  local held = redis.call('HGETALL', claims)
  for i = 1, #held, 2 do
    if held[i + 1]:sub(1, #claim_id + 1) == claim_id .. '-' then
      take(held[i], held[i + 1])
    end
  end
elseif want > 0 and suspended == 0 then
  claim(KEYS[2])
  for i = 7, #KEYS do
    claim(KEYS[i])
  end
end
if #jobs + #outcomes > 0 then
  gather('HSET', claims, '.claim', claim_id)
end
write_gathered()
redis.call('ZADD', KEYS[4], now + lease, worker)
return {stale, parents, jobs, suspended}
