-- Acknowledging: it writes the outcomes of a claim. worker/process/outcome.py describes an outcome.
-- requires: coordination/redis/clock, gathered, jobs/caller, jobs/events, jobs/guarded, jobs/queues
-- requires: jobs/records
-- may use: jobs/batches, jobs/callbacks, jobs/canceling, jobs/corrupt, jobs/groups, jobs/limits, jobs/scheduled
-- may use: jobs/singletons

local acknowledge = {}

local ENDS = {'finished', 'failed', 'stopped', 'retried', 'failed'} -- by RQ's number for a result
local SURELY_SHORT = 0.04 -- seconds: such a job was not marked as started

local now, worker, emit = clock.now, caller.worker, events.emit

local function ends(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

local has_blocked = false

local function place(id, queue, status, ttl, front, delay)
  if status == 'canceled' then return end
  local group = status == 'queued' and delay > 0 and records.get(id, 'group')
  if group then
    groups.block(queue, group, id, nil, now + delay) -- its lock is taken, so the next job would not get it either
    has_blocked = true
  elseif status == 'queued' then
    queues.push(queue, id, front and 'LPUSH' or 'RPUSH')
  elseif status == 'scheduled' then
    gathered.add('ZADD', scheduled.key(queue), string.format('%.6f', now + delay), id)
    scheduled.due(queue, now + delay)
  else
    local registry = status == 'finished' and 'rq:finished:' or 'rq:failed:'
    gathered.add('ZADD', registry .. queue, ttl < 0 and '+inf' or math.floor(now + ttl), id)
  end
end

local counts, seconds = {}, 0

-- Jobs of this call that somebody canceled by RQ's code while they ran: they stay canceled.
local function find_canceled(outcomes)
  local by_queue, found = {}, {}
  for _, outcome in ipairs(outcomes) do
    local ids = by_queue[outcome[3]] or {}
    by_queue[outcome[3]], ids[#ids + 1] = ids, outcome[1]
  end
  for queue, ids in pairs(by_queue) do
    local scores = redis.pcall('ZMSCORE', 'rq:canceled:' .. queue, unpack(ids))
    for i, id in ipairs(scores.err and {} or ids) do
      found[id] = scores[i] and records.get(id, 'status') == 'canceled'
    end
  end
  return found
end

-- Begin a job's callbacks, if it has some for this end. The status until they are done, or nothing.
local function begin_callbacks(kind, id, status, ttl, front, delay)
  local waits, place, value = status, 'end', ttl
  if not ends(status) then
    waits, place, value = 'scheduled', 'at', string.format('%.6f', now + delay)
    if status == 'queued' then place, value = 'queue', front and 'front' or 'back' end
  end
  return callbacks.begin(id, waits, kind, place, value) and waits or nil
end

local function write_result(id, execution, ttl, kind, began, stopped, name, value, is_bounded)
  local results = 'rq:results:' .. id
  local added = redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', worker, 'execution_id', execution,
    'execution_started_at', began, 'execution_ended_at', stopped, name, value)
  if added.err then return corrupt.set_aside(id, added.err) end
  if is_bounded then redis.call('XTRIM', results, 'MAXLEN', '~', 10) end
  if ttl > 0 then redis.call('EXPIRE', results, ttl) end
end

local function finish(callback, id, execution, queue, status, ttl, kind, started, ended, began, stopped, name, value, extra, front, delay, marked)
  local record = records.key(id)
  local repeats = kind == 1 and status ~= 'finished'
  local waits = callback ~= '' and status ~= 'canceled' and begin_callbacks(callback, id, status, ttl, front, delay)
  if waits then
    acknowledge.due[#acknowledge.due + 1] = id
  elseif status == 'finished' and ttl == 0 then
    redis.call('DEL', record, 'rq:results:' .. id)
  end
  local written = 0
  if not waits and status == 'finished' and ttl == 0 then
    -- nothing is left
  elseif kind == 0 then
    written = redis.pcall('HSET', record, 'status', status, unpack(extra))
  else
    written = redis.pcall('HSET', record, 'status', waits or status, 'started_at', started, 'ended_at', ended,
      'worker_name', worker, unpack(extra))
  end
  if type(written) == 'table' then
    corrupt.set_aside(id, written.err) -- the key is not a record any more
  elseif written and (waits or status ~= 'finished' or ttl ~= 0) then
    if kind > 0 then
      local keep = waits and -1 or ttl
      if waits or ttl ~= 0 or not repeats then
        write_result(id, execution, keep, kind, began, stopped, name, value, kind > 1 or repeats)
      end
      if keep > 0 and ends(status) then
        redis.call('EXPIRE', record, keep)
      else
        redis.call('PERSIST', record)
      end
    end
    if not waits or ends(status) and (status ~= 'finished' or ttl ~= 0) then place(id, queue, status, ttl, front, delay) end
  end
  if status == 'canceled' then
    emit('canceled', id, queue, worker)
  elseif kind == 0 and delay == 0 and marked then
    emit('returned', id, queue, worker)
  elseif kind > 0 then
    emit(ENDS[kind], id, queue, worker,
      {started = tonumber(began), ended = tonumber(stopped), delay = kind == 4 and delay or nil})
  end
  if kind > 0 then
    local counter = kind == 1 and 'successful_job_count' or 'failed_job_count'
    counts[counter] = (counts[counter] or 0) + 1
    seconds = seconds + stopped - began
  end
end

-- Record a step of a job's callbacks as done; "due" leaves it to the next claim.
local function settle(id, queue, status)
  if status == 'settled' and callbacks.settle(id, queue) then
    acknowledge.due[#acknowledge.due + 1] = id
  elseif status == 'due' then
    callbacks.postpone(id, queue)
  end
end

local counted = {} -- per batch the jobs, their states and results

local function count(batch, id, status, result)
  local state = batches.state_of(status)
  if not batches.of(batch) or not state then return end
  local all = counted[batch] or {{}, {}, {}}
  counted[batch] = all
  all[1][#all[1] + 1], all[2][#all[2] + 1], all[3][id] = id, state, (state == 'd' and '+' or '-') .. result
end

acknowledge.due = {} -- the ids of jobs whose callbacks the outcomes call for

-- Write the outcomes. `held` has the executions that `claims` name for their jobs; the call is sent `again` if it was
-- done before; no record has dependents if `is_plain`. Whether all were accepted, and whether a group was blocked;
-- stale ids and those of jobs with dependents are added to `stale` and `parents`.
function acknowledge.all(outcomes, claims, hash, held, again, is_plain, stale, parents)
  local keys = {}
  for i, outcome in ipairs(outcomes) do keys[i] = records.key(outcome[1]) end
  local none_deleted, canceled = redis.call('EXISTS', unpack(keys)) == #keys, find_canceled(outcomes)
  for i, outcome in ipairs(outcomes) do
    local id, execution, queue, status, ttl, kind = unpack(outcome, 1, 6)
    local is_there = none_deleted or redis.call('EXISTS', keys[i]) == 1
    local has_parent = is_there and not is_plain and ends(status)
      and redis.call('EXISTS', keys[i] .. ':dependents') == 1
    if held[i + 1] == execution then
      if has_parent then
        parents[#parents + 1] = id
        guarded.call('ZADD', 'pm:parents', now, id) -- until someone has enqueued its dependents
      end
      local goes_back = status == 'queued' or status == 'scheduled'
      local is_replaced = goes_back and outcome[18] ~= '' and singletons.was_replaced(id, outcome[18])
      if is_replaced and kind > 0 then
        status, kind, outcome[4], outcome[6] = 'stopped', 3, 'stopped', 3
        if outcome[20] ~= '' then outcome[20] = 'stopped' end
      end
      if is_there and ends(status) then callbacks.leave_trace(id, ttl) end
      if outcome[18] ~= '' then
        limits.release(outcome[18], id, kind == 0, kind == 0 and status == 'queued' and outcome[15] > 0)
      end
      if is_there and (status == 'settled' or status == 'due') then
        settle(id, queue, status)
      elseif is_there and is_replaced and kind == 0 then
        canceling.finish(id, queue, 'replaced')
        batches.ended(id, 'c')
      elseif is_there then
        if canceled[id] then status, outcome[4] = 'canceled', 'canceled' end
        finish(outcome[20], unpack(outcome, 1, 16))
        if goes_back and outcome[18] ~= '' then singletons.goes_back(id, outcome[18], outcome[15]) end
      end
      if outcome[19] ~= '' then count(outcome[19], id, status, outcome[12]) end
      gathered.add('HDEL', claims, id)
      if outcome[16] then
        gathered.add('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
        if kind == 0 or outcome[10] - outcome[9] > SURELY_SHORT then records.forget_execution(id, execution) end
      end
    elseif not again then
      stale[#stale + 1] = id
    elseif has_parent then
      parents[#parents + 1] = id
    end
  end
  for counter, by in pairs(counts) do
    redis.pcall('HINCRBY', hash, counter, by)
  end
  if seconds > 0 then
    redis.pcall('HINCRBYFLOAT', hash, 'total_working_time', string.format('%.6f', seconds))
  end
  gathered.write()
  scheduled.notify()
  for batch, all in pairs(counted) do batches.count(batch, unpack(all)) end
  return has_blocked
end

return acknowledge
