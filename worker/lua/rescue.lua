-- Return a worker's jobs to the front of the queues that they came from, and end its lease.
-- A worker that stops calls it for itself; a pool calls it for a child that died, or for any worker whose lease has
-- ended. Calling it twice does no harm: the second call finds nothing. A call moves a few jobs: call it again for more.
-- requires: coordination/redis/clock, jobs/caller, jobs/events, jobs/guarded, jobs/queues, jobs/records
-- may use: jobs/batches, jobs/callbacks, jobs/corrupt, jobs/limits, jobs/quarantine, jobs/scheduled
-- may use: jobs/singletons
--
-- KEYS[1]  the worker's claims    KEYS[2]  its waiting list    KEYS[3]  the leases    KEYS[4]  its RQ hash
-- KEYS[5]  the set of workers
-- ARGV[1]  the worker
-- ARGV[2]  verdict: "returned" (a clean stop), "vanished" (its lease ended), "died", "overran" (killed for its job's
--          timeout) or "stopped"
-- ARGV[3]  the executions to which the verdict applies, each followed by a space; "" for those marked as started
-- ARGV[4]  after this many deaths a job fails instead of running again
-- ARGV[5]  the reason, as a result stream keeps it    ARGV[6]  now as RQ's text
-- ARGV[7]  "all"; "expired" to do nothing unless the lease has ended; or "named" for a worker that goes on and
--          loses only the executions of ARGV[3]
-- ARGV[8]  the crash report, or ""
-- Returns  [ids that went back, ids that failed, 1 if there are more], or nothing if the lease has not ended

local claims, waiting, leases, hash, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, verdict, named, deaths, reason, now_text, scope, report = unpack(ARGV)

local now = clock.now
local FAILURE_TTL, LONGEST_TTL = 31536000, 3153600000
local JOBS_A_CALL, FIELDS_A_LOOK = 64, 256

if scope == 'expired' then
  local lease = redis.call('ZSCORE', leases, worker)
  if lease and tonumber(lease) > now then
    return false
  end
end

local back, failed = {}, {}
caller.at, caller.worker = now_text, worker

-- The reply of a read. A key of the wrong type is set aside, and `otherwise` is returned.
local function read(otherwise, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    quarantine.move(key, reply.err)
    return otherwise
  end
  return reply
end

-- The queue that a job came from, and whether its callback is due; false if its record is gone or corrupt, or somebody
-- else has recorded its end.
local function queue_of(id)
  local fields = records.read(id, 'origin', 'status')
  if fields.err then
    corrupt.set_aside(id, fields.err)
    return false
  end
  local queue, status = fields[1], fields[2]
  local is_due = queue and callbacks.due(id, status) ~= nil
  if status and status ~= 'queued' and status ~= 'started' and not is_due then
    local state = batches.state_of(status)
    if state then batches.ended(id, state) end
    return false
  elseif not queue then
    if records.exists(id) then corrupt.set_aside(id, 'the record names no queue') end
    return false
  end
  queues.make_way(queue)
  return queue, is_due
end

local function to_front(id, queue, was_held, is_due, needs)
  if is_due then return callbacks.postpone(id, queue) end
  local was_started = was_held and redis.call('HGET', records.key(id), 'status') == 'started'
  if was_started then events.emit(verdict == 'returned' and 'returned' or 'rescued', id, queue, worker, {reason = verdict}) end
  redis.call('HSET', records.key(id), 'status', 'queued', 'worker_name', '')
  queues.push(queue, id, 'LPUSH')
  if needs then singletons.goes_back(id, needs, 0) end
  back[#back + 1] = id
end

local function fail(id, execution, queue, is_stopped)
  local record, results = records.key(id), 'rq:results:' .. id
  local ttl = tonumber(redis.call('HGET', record, 'failure_ttl')) or FAILURE_TTL
  ttl = ttl ~= ttl and FAILURE_TTL or math.max(math.min(math.floor(ttl), LONGEST_TTL), -1)
  local status, kind = unpack(is_stopped and {'stopped', 3} or {'failed', 2})
  redis.call('HSET', record, 'status', status, 'ended_at', now_text)
  redis.pcall('XADD', results, 'MAXLEN', '~', 10, '*', 'type', kind, 'worker_name', worker,
    'execution_id', execution, 'exc_string', reason)
  if callbacks.begin(id, status, verdict == 'stopped' and 'stopped' or 'failure', 'end', ttl) then
    callbacks.postpone(id, queue)
  elseif ttl > 0 then
    redis.call('EXPIRE', record, ttl)
    redis.call('EXPIRE', results, ttl)
  end
  -- A pool enqueues these at its next look, since nobody else knows of them.
  if redis.call('EXISTS', record .. ':dependents') == 1 then guarded.call('ZADD', 'pm:parents', 0, id) end
  redis.pcall('ZADD', 'rq:failed:' .. queue, ttl < 0 and '+inf' or math.floor(now + ttl), id)
  failed[#failed + 1] = id
  events.emit(status, id, queue, worker, {reason = verdict})
  batches.ended(id, 'f')
end

local function is_named(execution) return named == '' or named:find(execution .. ' ', 1, true) ~= nil end

-- Whether the job ends here: it was cancelled, its process died too often, or its retries are used up.
local function is_over(id, execution, is_due)
  if not is_named(execution) or (named == '' and redis.call('HGET', records.key(id), 'status') ~= 'started') then
    return false -- it goes back unchanged: it may not have started
  elseif verdict == 'died' then
    if report ~= '' then
      redis.call('HSET', records.key(id), 'crash', report)
    end
    local count = redis.pcall('HINCRBY', records.key(id), 'deaths', 1)
    return type(count) ~= 'number' or count >= tonumber(deaths) -- a corrupt count may have been anything
  elseif verdict == 'overran' and not is_due then
    local left = tonumber(redis.call('HGET', records.key(id), 'retries_left')) or 0
    redis.call('HSET', records.key(id), 'retries_left', math.max(left - 1, 0))
    return left < 1
  end
  return verdict == 'stopped' or verdict == 'overran'
end

-- Give up the callback of a job: it was stopped, overran or killed its process too often.
local function give_up(id, queue)
  quarantine.note(id, 'its callback was given up, since its process ' .. (verdict == 'died' and 'died' or 'was killed'))
  if callbacks.settle(id, queue) then callbacks.postpone(id, queue) end
end

-- Some of the claimed jobs, each with its execution, in order while they are few.
local cursor, held, seen = '0', {}, {}
repeat
  local found
  cursor, found = unpack(read({'0', {}}, 'HSCAN', claims, cursor, 'COUNT', FIELDS_A_LOOK))
  for i = 1, #found, 2 do
    local id, execution = found[i], found[i + 1]
    if id:sub(1, 1) ~= '.' and not seen[id] and (scope ~= 'named' or is_named(execution)) then
      held[#held + 1], seen[id] = {id, execution}, true
    end
  end
until #held >= JOBS_A_CALL or cursor == '0'

-- The last claimed goes back first, so the first claimed ends up in front.
local left = JOBS_A_CALL
while left > 0 and #held > 0 do
  local id, execution = unpack(table.remove(held))
  local queue, is_due = queue_of(id)
  local needs = records.get(id, 'limits')
  if needs then limits.release(needs, id, verdict == 'returned') end
  if queue then
    redis.pcall('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
    records.forget_execution(id, execution)
    local is_replaced = not is_due and needs and singletons.was_replaced(id, needs)
    if not is_over(id, execution, is_due) and not is_replaced then
      to_front(id, queue, true, is_due, needs)
    elseif is_due then
      give_up(id, queue)
    else
      fail(id, execution, queue, verdict == 'stopped' or is_replaced)
    end
  end
  redis.call('HDEL', claims, id)
  left = left - 1
end
local has_more = #held > 0 or cursor ~= '0'
if scope == 'named' or has_more then
  events.write()
  scheduled.notify()
  return {back, failed, has_more and 1 or 0}
end

local ids = read({}, 'LRANGE', waiting, -left, -1)
redis.call('LTRIM', waiting, 0, -left - 1)
has_more = redis.call('LLEN', waiting) > 0
for i = #ids, 1, -1 do
  local queue, is_due = queue_of(ids[i])
  if queue then
    to_front(ids[i], queue, false, is_due)
  end
end

if has_more then
  events.write()
  return {back, failed, 1}
end
redis.call('DEL', claims)
redis.call('ZREM', leases, worker)
if verdict ~= 'returned' or not read(false, 'HGET', hash, 'death') then -- it has not signed off itself
  local served = read(false, 'HGET', hash, 'queues') or ''
  for queue in served:gmatch('[^,]+') do
    guarded.call('SREM', 'rq:workers:' .. queue, hash)
  end
  guarded.call('SREM', workers, hash)
  redis.call('DEL', hash)
end
events.write()
scheduled.notify()
return {back, failed, 0}
