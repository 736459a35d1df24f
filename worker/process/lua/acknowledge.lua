-- Acknowledging: it writes the outcomes of a claim. The first part of finish_and_claim.lua, whose head names KEYS[1],
-- what it takes and what it Returns.

local claims = KEYS[1]
local mark, claim_id, want, worker, now_text, lease, outcomes = unpack(cmsgpack.unpack(ARGV[1]))
local now_us = script_began[1] * 1000000 + script_began[2]
local stale, parents, jobs = {}, {}, {}

own.worker, own.at = worker, now_text

-- Which of the acknowledged jobs the worker still holds, and which claim was its last.
local ids, records, extras = {}, {}, {KEYS[6], 'pm:paused', 'pm:due', 'pm:queue-rates', 'pm:batches-paused'}
for i, outcome in ipairs(outcomes) do
  ids[i], records[i], extras[i + 5] = outcome[1], 'rq:job:' .. outcome[1], 'rq:job:' .. outcome[1] .. ':dependents'
end
local held = call('HMGET', claims, mark, unpack(ids))
local again = held[1] == claim_id
local none_waits = redis.call('EXISTS', unpack(extras)) == 0
local suspended = none_waits and 0 or redis.call('EXISTS', KEYS[6])
local paused = none_waits and {} or call('SMEMBERS', 'pm:paused')

-- The first write is one that a full memory refuses, so nothing leaves a list unless all can be written.
if want + #outcomes > 0 then
  redis.call('HSET', claims, mark, claim_id)
end

local GONE_SECONDS = 60 -- how late a repeated enqueue may arrive after a job that left no record
local function ends(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

local function place(id, queue, status, ttl, front, delay)
  local group = status == 'queued' and delay > 0 and redis.pcall('HGET', 'rq:job:' .. id, 'group')
  if type(group) == 'string' then
    groups.block(queue, group, id, nil, now + delay) -- its lock is taken, so the next job would not get it either
    none_waits = false
  elseif status == 'queued' then
    call(front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
  elseif status == 'scheduled' then
    gather('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', now + delay), id)
    scheduled(queue, now + delay)
  else
    local registry = status == 'finished' and 'rq:finished:' or 'rq:failed:'
    gather('ZADD', registry .. queue, ttl < 0 and '+inf' or math.floor(now + ttl), id)
  end
end

local ENDS = {'finished', 'failed', 'stopped', 'retried'}
local KINDS = {'successful_job_count', 'failed_job_count', 'failed_job_count', 'failed_job_count'}
local counts, seconds = {}, 0

local function finish(id, execution, queue, status, ttl, kind, started, ended, began, stopped, name, value, extra, front, delay, marked)
  local record, results = 'rq:job:' .. id, 'rq:results:' .. id
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
    set_aside(id, written.err) -- the key is not a record any more
  elseif kind == 0 then
    place(id, queue, status, ttl, front, delay)
  elseif status ~= 'finished' or ttl ~= 0 then
    local added = redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', worker, 'execution_id', execution,
      'execution_started_at', began, 'execution_ended_at', stopped, name, value)
    if added.err then
      set_aside(id, added.err)
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
    emit(ENDS[kind], id, queue, worker, {started = tonumber(began), ended = tonumber(stopped), delay = kind == 4 and delay or nil})
    counts[KINDS[kind]] = (counts[KINDS[kind]] or 0) + 1
    seconds = seconds + stopped - began
  end
end

-- The enqueue of a chosen id that a job came from.
local function call_of(record)
  local name = redis.pcall('HGET', record, 'call')
  return type(name) == 'string' and name or ''
end

-- RQ's code has recorded the end of a job. This emits its event, unless that code deleted the record.
local function settled_status(id, queue)
  local status = redis.pcall('HGET', 'rq:job:' .. id, 'status')
  if type(status) ~= 'string' then return end
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

local function acknowledge()
  local none_deleted = redis.call('EXISTS', unpack(records)) == #ids
  for i, outcome in ipairs(outcomes) do
    local id, execution, queue, status, ttl, kind = unpack(outcome, 1, 6)
    local is_there = none_deleted or redis.call('EXISTS', records[i]) == 1
    local has_parent = is_there and not none_waits and ends(status) and redis.call('EXISTS', extras[i + 5]) == 1
    if held[i + 1] == execution then
      if has_parent then
        parents[#parents + 1] = id
        redis.call('ZADD', 'pm:parents', now, id) -- until someone has enqueued its dependents
      end
      if is_there and ends(status) and ttl >= 0 and ttl < GONE_SECONDS then
        redis.call('SET', 'pm:gone:' .. id, call_of(records[i]), 'EX', GONE_SECONDS)
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
      gather('HDEL', claims, id)
      if outcome[16] then gather('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution) end
    elseif not again then
      stale[#stale + 1] = id
    elseif has_parent then
      parents[#parents + 1] = id
    end
  end
  for counter, count in pairs(counts) do
    redis.pcall('HINCRBY', KEYS[3], counter, count)
  end
  if seconds > 0 then
    redis.pcall('HINCRBYFLOAT', KEYS[3], 'total_working_time', string.format('%.6f', seconds))
  end
  write_gathered()
  notify_scheduler()
  if ARGV[2] and ARGV[2] ~= '' and not again and #stale == 0 then count_statistics(ARGV[2], worker, now) end
  for batch, all in pairs(counted) do batches.count(batch, unpack(all)) end
end
