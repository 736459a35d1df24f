-- The end of a job, or of one execution: its status, result and registry, how long all that is kept, its unique place,
-- event and batch. What takes a job from where it waits is withdrawal.lua; what follows an end is callbacks.lua.
-- requires: caller, coordination/redis/clock, counting, gathered, records
-- may use: belongings, corrupt, events, gone, guarded, uniqueness

local ending = {}

local MOST_RESULTS = 10 -- that are kept, about
local CANCELED_TTL, FAILURE_TTL, LONGEST_TTL = 86400, 31536000, 3153600000 -- seconds

function ending.is_end(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

-- Write a job's status, and more fields and values, to its record. Returns how many of the fields are new, or false if
-- the key holds another type and was set aside.
function ending.write(id, status, ...)
  local record = records.key(id)
  local written = redis.pcall('HSET', record, 'status', status, ...)
  if type(written) == 'number' then return written end
  if not written.err:find('WRONGTYPE', 1, true) then redis.call('HSET', record, 'status', status) end -- raises it
  corrupt.set_aside(id, written.err)
  return false
end

-- Add a result: RQ's number for its kind, for how many seconds to keep it (or for ever), and more fields and values.
function ending.result(id, execution, kind, ttl, is_bounded, ...)
  local results = 'rq:results:' .. id
  local added = redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', caller.worker, 'execution_id', execution, ...)
  if added.err then return corrupt.set_aside(id, added.err) end
  if is_bounded then redis.call('XTRIM', results, 'MAXLEN', '~', MOST_RESULTS) end
  if ttl > 0 then redis.call('PEXPIREAT', results, clock.millisecond + ttl * 1000) end
end

-- Keep a job's record for so many seconds, or for ever, and what belongs to it if it may have more.
function ending.keep(id, ttl, may_have_more)
  if may_have_more then belongings.keep(id, ttl) end
  if ttl <= 0 then return redis.call('PERSIST', records.key(id)) end
  redis.call('PEXPIREAT', records.key(id), clock.millisecond + ttl * 1000) -- the server would rewrite EXPIRE to this
end

-- Add an ended job to RQ's registry of its queue.
function ending.register(id, queue, status, ttl)
  local registry = status == 'finished' and 'rq:finished:' or 'rq:failed:'
  gathered.add('ZADD', registry .. queue, ttl < 0 and '+inf' or math.floor(clock.now + ttl), id)
end

-- For how many seconds a job is kept that fails without an outcome.
function ending.failure_ttl(id)
  local ttl = tonumber(records.get(id, 'failure_ttl')) or FAILURE_TTL
  return ttl ~= ttl and FAILURE_TTL or math.max(math.min(math.floor(ttl), LONGEST_TTL), -1)
end

-- A job that its worker lost fails or is stopped. `keep` is its TTL, or a longer one while its callbacks are due.
function ending.fail(id, execution, queue, status, ttl, keep, reason, verdict)
  ending.write(id, status, 'ended_at', caller.at)
  ending.result(id, execution, status == 'stopped' and 3 or 2, keep, true, 'exc_string', reason)
  ending.keep(id, keep, true)
  ending.register(id, queue, status, ttl)
  counting.note(id, 'f', nil, '-' .. reason)
  events.emit(status, id, queue, caller.worker, {reason = verdict})
end

-- Keep the record of a canceled job for a while.
function ending.keep_canceled(id)
  local ttl = ending.failure_ttl(id)
  ending.keep(id, ttl >= 1 and math.min(ttl, CANCELED_TTL) or CANCELED_TTL, true)
  redis.call('PEXPIRE', 'rq:results:' .. id, redis.call('PTTL', records.key(id))) -- of before it was retried
end

-- A job that has not started is canceled. If it was not withdrawn, claims pass its id over.
function ending.cancel(id, queue, reason)
  ending.write(id, 'canceled', 'ended_at', caller.at)
  ending.keep_canceled(id)
  guarded.call('ZADD', 'rq:canceled:' .. queue, clock.second, id)
  uniqueness.leave(id)
  counting.note(id, 'c')
  events.emit('canceled', id, queue, nil, reason and {reason = reason} or nil)
end

function ending.delete(id) redis.call('DEL', records.key(id), belongings.all(id)) end

-- What follows a job's end is done, so from now on it is kept for its TTL.
function ending.expire(id, ttl, is_finished)
  gone.note(id, ttl)
  if ttl == 0 and is_finished then return ending.delete(id) end
  for _, key in ipairs(ttl > 0 and {records.key(id), 'rq:results:' .. id} or {}) do redis.call('EXPIRE', key, ttl) end
end

-- A job that was withdrawn, or has ended, is deleted. Whether it was there.
function ending.purge(id, queue, has_ended)
  local was_there, registries = records.exists(id), has_ended and {'rq:finished:', 'rq:failed:', 'rq:canceled:'} or {}
  uniqueness.leave(id)
  for _, registry in ipairs(registries) do guarded.call('ZREM', registry .. queue, id) end
  if not has_ended then counting.note(id, 'c') end
  redis.call('DEL', records.key(id), records.key(id) .. ':dependents', belongings.all(id))
  if was_there and not has_ended then events.emit('canceled', id, queue, nil, {reason = 'purged'}) end
  return was_there
end

-- An ended job runs again, or first waits for others: nothing of its end is left.
function ending.undo(id, queue, status)
  ending.write(id, status, 'enqueued_at', caller.at, 'ended_at', '', 'worker_name', '')
  redis.call('HDEL', records.key(id), 'callback_due', 'deaths', 'expires_at', 'fingerprint', 'replaced', 'unknown_since')
  for _, key in ipairs({records.key(id), 'rq:results:' .. id}) do redis.call('PERSIST', key) end
  belongings.go_on(id)
  for _, registry in ipairs({'rq:failed:', 'rq:canceled:'}) do guarded.call('ZREM', registry .. queue, id) end
  counting.note(id, 'p')
  if status == 'queued' then events.emit('enqueued', id, queue) end
end

return ending
