-- Acknowledging: it writes the outcomes of a claim. worker/process/outcome.py describes an outcome.
-- requires: gathered, jobs/batches, jobs/corrupt, jobs/events, jobs/groups, jobs/limits, jobs/quarantine, jobs/queues
-- requires: jobs/records, jobs/scheduled, coordination/redis/clock

local acknowledge = {}

local GONE_SECONDS = 60 -- how late a repeated enqueue may arrive after a job that left no record
local ENDS = {'finished', 'failed', 'stopped', 'retried'}
local KINDS = {'successful_job_count', 'failed_job_count', 'failed_job_count', 'failed_job_count'}

local now, worker, emit = clock.now, quarantine.worker, events.emit

local function ends(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

local has_blocked = false

local function place(id, queue, status, ttl, front, delay)
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

local function finish(id, execution, queue, status, ttl, kind, started, ended, began, stopped, name, value, extra, front, delay, marked)
  local record, results = records.key(id), 'rq:results:' .. id
  local written = 0
  if status == 'finished' and ttl == 0 then
    redis.call('DEL', record, results)
  elseif kind == 0 then
    written = redis.pcall('HSET', record, 'status', status, unpack(extra))
  else
    written = redis.pcall('HSET', record, 'status', status, 'started_at', started, 'ended_at', ended, 'worker_name', worker,
      unpack(extra))
  end
  if type(written) == 'table' then
    corrupt.set_aside(id, written.err) -- the key is not a record any more
  elseif kind == 0 then
    place(id, queue, status, ttl, front, delay)
  elseif status ~= 'finished' or ttl ~= 0 then
    local added = redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', worker, 'execution_id', execution,
      'execution_started_at', began, 'execution_ended_at', stopped, name, value)
    if added.err then
      corrupt.set_aside(id, added.err)
    elseif ttl > 0 then
      redis.call('EXPIRE', results, ttl)
    end
    if kind > 1 and not added.err then redis.call('XTRIM', results, 'MAXLEN', '~', 10) end
    if ttl > 0 and ends(status) then
      redis.call('EXPIRE', record, ttl)
    else
      redis.call('PERSIST', record)
    end
    place(id, queue, status, ttl, front, delay)
  end
  if kind == 0 and delay == 0 and marked then
    emit('returned', id, queue, worker)
  elseif kind > 0 then
    emit(ENDS[kind], id, queue, worker,
      {started = tonumber(began), ended = tonumber(stopped), delay = kind == 4 and delay or nil})
    counts[KINDS[kind]] = (counts[KINDS[kind]] or 0) + 1
    seconds = seconds + stopped - began
  end
end

-- RQ's code has recorded the end of a job. This emits its event, unless that code deleted the record.
local function settled_status(id, queue)
  local status = records.get(id, 'status')
  if not status then return end
  emit(ends(status) and status or 'retried', id, queue, worker)
  return status
end

local counted = {} -- per batch the jobs, their states and results

local function count(batch, id, status, result)
  local state = batches.state_of(status)
  if not batches.of(batch) or not state then return end
  if result == '' then -- RQ's code recorded the end and the result
    local last = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)[1]
    for i, name in ipairs(last and last[2] or {}) do
      if name == 'return_value' or name == 'exc_string' then result = last[2][i + 1] end
    end
  end
  local all = counted[batch] or {{}, {}, {}}
  counted[batch] = all
  all[1][#all[1] + 1], all[2][#all[2] + 1], all[3][id] = id, state, (state == 'd' and '+' or '-') .. result
end

-- Write the outcomes. `held` has the executions that `claims` name for their jobs; the call is sent `again` if it was
-- done before; no record has dependents if `is_plain`. Whether all were accepted, and whether a group was blocked;
-- stale ids and those of jobs with dependents are added to `stale` and `parents`.
function acknowledge.all(outcomes, claims, hash, held, again, is_plain, stale, parents)
  local keys = {}
  for i, outcome in ipairs(outcomes) do keys[i] = records.key(outcome[1]) end
  local none_deleted = redis.call('EXISTS', unpack(keys)) == #keys
  for i, outcome in ipairs(outcomes) do
    local id, execution, queue, status, ttl, kind = unpack(outcome, 1, 6)
    local is_there = none_deleted or redis.call('EXISTS', keys[i]) == 1
    local has_parent = is_there and not is_plain and ends(status)
      and redis.call('EXISTS', keys[i] .. ':dependents') == 1
    if held[i + 1] == execution then
      if has_parent then
        parents[#parents + 1] = id
        redis.call('ZADD', 'pm:parents', now, id) -- until someone has enqueued its dependents
      end
      if is_there and ends(status) and ttl >= 0 and ttl < GONE_SECONDS then
        redis.call('SET', 'pm:gone:' .. id, records.get(id, 'call') or '', 'EX', GONE_SECONDS)
      end
      if outcome[18] ~= '' then
        limits.release(outcome[18], id, kind == 0 and status ~= 'settled', kind == 0 and outcome[15] > 0)
      end
      if status == 'settled' then
        status = is_there and settled_status(id, queue) or nil
      elseif is_there then
        finish(unpack(outcome, 1, 16))
      end
      if outcome[19] ~= '' then count(outcome[19], id, status, outcome[12]) end
      gathered.add('HDEL', claims, id)
      if outcome[16] then gathered.add('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution) end
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
