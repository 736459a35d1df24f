-- Hand in the outcomes of one batch and take the jobs of the next, in one atomic step.
--
-- KEYS[1]  the worker's claims: a hash of job id to execution id
-- KEYS[2]  the worker's waiting list: ids that a blocking move brought here
-- KEYS[3]  the worker's RQ hash    KEYS[4]  the leases    KEYS[5]  the quarantine    KEYS[6]  rq:suspended
-- KEYS[7+] the queues' lists, in the order in which they are served
-- ARGV[1]  msgpack: [mark, claim id, jobs wanted, worker, now as RQ's text, lease in seconds or 0, [outcome, ...]]
--          the mark is the field of the claims that names the last claim of those that may be sent again
--          an outcome is the array of worker/outcome.py's Outcome
-- Returns  [ids of stale outcomes, ids with dependents to enqueue, [job, ...], 1 while all workers are suspended,
--          names of paused queues, seconds until a parked group goes on, as text, if this worker is to look then]
--          a job is [id, execution id, origin, data, timeout, [each of RARE, as text or nothing] or nothing]
--
-- An outcome counts only while the claims name its execution: a worker that lost its lease meanwhile
-- changes nothing. Sent again with the same claim id, the script returns the same jobs and hands in
-- nothing a second time, so that a lost reply loses and doubles nothing.

local claims = KEYS[1]
local mark, claim_id, want, worker, now_text, lease, outcomes = unpack(cmsgpack.unpack(ARGV[1]))
local now = script_began[1] + script_began[2] / 1000000
local now_us = script_began[1] * 1000000 + script_began[2]
local stale, parents, jobs = {}, {}, {}

own.worker, own.at = worker, now_text

-- What the worker holds of the jobs that it hands in, and which claim was its last.
local ids, records, extras = {}, {}, {KEYS[6], 'pm:paused', 'pm:due', 'pm:queue-rates'}
for i, outcome in ipairs(outcomes) do
  ids[i], records[i], extras[i + 4] = outcome[1], 'rq:job:' .. outcome[1], 'rq:job:' .. outcome[1] .. ':dependents'
end
local held = call('HMGET', claims, mark, unpack(ids))
local again = held[1] == claim_id
local none_waits = redis.call('EXISTS', unpack(extras)) == 0
local suspended = none_waits and 0 or redis.call('EXISTS', KEYS[6])
local paused = none_waits and {} or call('SMEMBERS', 'pm:paused')

-- The first write is one that a full memory refuses, so that nothing is taken off a list before all can be written.
if want + #outcomes > 0 then
  redis.call('HSET', claims, mark, claim_id)
end
if lease > 0 then
  call('ZADD', KEYS[4], now + lease, worker)
end

local GONE_SECONDS = 60 -- how long a re-sent enqueue may come after a job that left no record
local RARE = {'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals', 'attempts', 'enqueue_at_front_on_retry',
  'expires_at', 'checkpoint', 'group', 'gates',
  'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks', 'repeats_left'}

-- What all jobs of a batch write to one key is gathered here, and written by one command each.
local gathered = {}

local function gather(command, key, first, second)
  local keys = gathered[command] or {}
  gathered[command] = keys
  local values = keys[key] or {}
  keys[key] = values
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
  gathered = {}
end

local function ends(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

local function place(id, queue, status, ttl, front, delay)
  local group = status == 'queued' and delay > 0 and redis.pcall('HGET', 'rq:job:' .. id, 'group')
  if type(group) == 'string' then
    groups.park(queue, group, id, nil, now + delay) -- its lock was taken, so that the next would not get it either
    none_waits = false
  elseif status == 'queued' then
    call(front and 'LPUSH' or 'RPUSH', 'rq:queue:' .. queue, id)
  elseif status == 'scheduled' then
    gather('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', now + delay), id)
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
    set_aside(id, written.err) -- what stands there is no record any more
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
    if kind > 1 and not added.err then
      redis.call('XTRIM', results, 'MAXLEN', '~', 10)
    end
    if ttl > 0 and ends(status) then
      redis.call('EXPIRE', record, ttl)
    else
      redis.call('PERSIST', record)
    end
    place(id, queue, status, ttl, front, delay)
  end
  if kind == 0 and delay == 0 and marked then
    tell('returned', id, queue, worker)
  elseif kind > 0 then
    tell(ENDS[kind], id, queue, worker, {started = tonumber(began), ended = tonumber(stopped), delay = kind == 4 and delay or nil})
    counts[KINDS[kind]] = (counts[KINDS[kind]] or 0) + 1
    seconds = seconds + stopped - began
  end
end

-- Which enqueue of a chosen id a job came from.
local function call_of(record)
  local name = redis.pcall('HGET', record, 'call')
  return type(name) == 'string' and name or ''
end

-- RQ's code has recorded the end of a job; unless it has done it by deleting the record, it is told here.
local function tell_settled(id, queue)
  local status = redis.pcall('HGET', 'rq:job:' .. id, 'status')
  if type(status) == 'string' then tell(ends(status) and status or 'retried', id, queue, worker) end
end

local function hand_in()
  local none_deleted = redis.call('EXISTS', unpack(records)) == #ids
  for i, outcome in ipairs(outcomes) do
    local id, execution, queue, status, ttl, kind = unpack(outcome, 1, 6)
    local is_there = none_deleted or redis.call('EXISTS', records[i]) == 1
    local has_parent = is_there and not none_waits and ends(status) and redis.call('EXISTS', extras[i + 4]) == 1
    if held[i + 1] == execution then
      if has_parent then
        parents[#parents + 1] = id
        redis.call('ZADD', 'pm:parents', now, id) -- until its dependents are enqueued, whoever does it
      end
      if is_there and ends(status) and ttl >= 0 and ttl < GONE_SECONDS then
        redis.call('SET', 'pm:gone:' .. id, call_of(records[i]), 'EX', GONE_SECONDS)
      end
      if outcome[18] ~= '' then
        gates.release(outcome[18], id, kind == 0 and status ~= 'settled', kind == 0 and outcome[15] > 0)
      end
      if is_there and status ~= 'settled' then
        finish(unpack(outcome, 1, 16))
      elseif is_there then
        tell_settled(id, queue)
      end
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
end

local looks = 4 * want + 64 -- at jobs that may not run, a call
local has_followed, has_parked = false, false
local is_paused, rooms, soonest = {}, {}, math.huge

-- Add a job to the reply; whether it may run, and its record is one.
local function take(id, number)
  local execution = claim_id .. '-' .. number
  local values = redis.pcall('HMGET', 'rq:job:' .. id, 'origin', 'data', 'timeout', unpack(RARE))
  if values.err then
    set_aside(id, values.err)
    return false
  elseif not values[2] then
    -- A record that expired or was deleted while its id waited is no loss; half a record is.
    if redis.call('EXISTS', 'rq:job:' .. id) == 1 then set_aside(id, 'the record holds no data') end
    return false
  end
  local group, needs = values[12] or values[13], values[13]
  if group and values[1] and not again then
    local holder = worker .. ' ' .. claim_id .. '-'
    local may_run, follows, is_parked = gates.claim(values[1], group, needs, id, holder, number, now_us)
    has_followed, has_parked = has_followed or follows, has_parked or is_parked
    if not may_run then return false end
  end
  local rare = false
  for i = 4, #values do
    if values[i] then
      rare = {select(4, unpack(values))}
      break
    end
  end
  local room = rooms[values[1]]
  if room then room.begun = room.begun + 1 end
  jobs[#jobs + 1] = {id, execution, values[1], values[2], values[3], rare}
  return true
end

local function claim(list)
  has_followed = false
  local room = rooms[list:sub(10)]
  local asked = math.min(want - #jobs, room and room.free - room.begun or want)
  local ids = asked > 0 and redis.pcall('LPOP', list, asked) or {}
  if ids.err then
    set_aside(list, ids.err)
    redis.call('RENAME', list, 'pm:broken:' .. list)
    return
  end
  for _, id in ipairs(ids) do
    looks = looks - 1
    local number = #jobs + 1
    if take(id, number) then
      gather('HSET', claims, id, claim_id .. '-' .. number) -- mark.lua shows those as started that take their time
    end
  end
  if #ids > 0 and (has_followed or #ids == asked) and looks > 0 then claim(list) end -- behind those that may not run
end

-- Back to where it came from, if a blocking move brought it from a queue that is paused.
local function is_moved_back(id)
  local queue = redis.pcall('HGET', 'rq:job:' .. id, 'origin')
  if not is_paused[queue] then return false end
  redis.call('LREM', KEYS[2], 1, id)
  redis.call('LPUSH', 'rq:queue:' .. queue, id)
  return true
end

if #outcomes > 0 then
  hand_in()
end
if again then
  local held = redis.call('HGETALL', claims)
  for i = 1, #held, 2 do
    local number = held[i + 1]:sub(#claim_id + 2)
    if held[i + 1] == claim_id .. '-' .. number then
      take(held[i], number)
    end
  end
elseif want > 0 and suspended == 0 then
  if not none_waits then
    groups.wake_due(now)
    rooms, soonest = gates.rooms(paused, now_us)
  end
  for _, queue in ipairs(paused) do is_paused[queue] = true end
  if #paused > 0 then
    for _, id in ipairs(call('LRANGE', KEYS[2], 0, -1)) do is_moved_back(id) end
  end
  claim(KEYS[2])
  for i = 7, #KEYS do
    if not is_paused[KEYS[i]:sub(10)] then claim(KEYS[i]) end
  end
  write_gathered()
  if next(rooms) then gates.begin(rooms, now_us) end
end
write_events()
local next_due = (has_parked or not none_waits) and want > 0 and #jobs == 0 and groups.next_due(now, worker, soonest) or ''
return {stale, parents, jobs, suspended, paused, next_due}
