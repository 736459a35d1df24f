-- Retrying jobs that were killed for their timeout: they wait for their next attempt like jobs that raised an error.
-- requires: coordination/redis/clock, jobs/caller, jobs/ending, jobs/events, jobs/gathered, jobs/queues, jobs/records
-- may use: jobs/callbacks, jobs/scheduled, jobs/singletons

local retrying = {}

local RETRIED = 4 -- RQ's number for this kind of result
local LONGEST_SPAN, LONGEST_BACK_OFF = 3153600000, 3600

-- Seconds until the next attempt, by the rules of retry_delay in worker/process/outcome.py.
local function delay_of(intervals, left, attempt)
  local _, list = pcall(cjson.decode, intervals)
  if type(list) == 'table' and #list > 0 then
    local span = tonumber(list[math.max(#list - left, 0) + 1]) or 0
    return math.max(0, math.min(span, LONGEST_SPAN))
  end
  local jitter = clock.microseconds % 1000000 / 1000000 -- the server's random numbers are the same in each call
  return jitter * math.min(LONGEST_BACK_OFF, 2 ^ (attempt - 1))
end

-- Begin the attempt's callback, if it has one; the next attempt follows it.
local function calls_back(id, queue, delay, is_front)
  local place, value = 'at', string.format('%.6f', clock.now + delay)
  if delay == 0 then place, value = 'queue', is_front and 'front' or 'back' end
  local is_due = callbacks.begin(id, 'scheduled', 'failure', place, value)
  if is_due then callbacks.postpone(id, queue) end
  return is_due
end

-- Record that an attempt failed, and let the job wait for the next one; whether it has retries left.
function retrying.fail(id, execution, queue, needs, ttl, reason)
  local fields = records.read(id, 'retries_left', 'retry_intervals', 'attempts', 'enqueue_at_front_on_retry')
  local left, attempt = tonumber(fields[1]) or 0, (tonumber(fields[3]) or 0) + 1
  if left < 1 then return false end
  local delay, is_front = delay_of(fields[2], left, attempt), fields[4] == '1'
  local is_due = calls_back(id, queue, delay, is_front)
  local status = (is_due or delay > 0) and 'scheduled' or 'queued'
  ending.write(id, status, 'retries_left', left - 1, 'attempts', attempt, 'worker_name', '', 'ended_at', caller.at)
  ending.result(id, execution, RETRIED, ttl, true, 'exc_string', reason)
  if not is_due and delay == 0 then
    queues.push(queue, id, is_front and 'LPUSH' or 'RPUSH')
  elseif not is_due then
    gathered.add('ZADD', scheduled.key(queue), string.format('%.6f', clock.now + delay), id)
    scheduled.due(queue, clock.now + delay)
  end
  if needs then singletons.goes_back(id, needs, delay) end
  events.emit('retried', id, queue, caller.worker, {reason = 'overran', delay = delay})
  return true
end

return retrying
