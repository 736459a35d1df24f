-- The end of a job that was performed, or of one execution: its result, and how long it and its record are kept.
-- requires: caller, coordination/redis/clock, gathered, records
-- may use: corrupt

local ending = {}

local MOST_RESULTS = 10 -- that are kept, about

function ending.is_end(status) return status == 'finished' or status == 'failed' or status == 'stopped' end

-- Add a result: RQ's number for its kind, for how many seconds to keep it (or for ever), and more fields and values.
function ending.result(id, execution, kind, ttl, is_bounded, ...)
  local results = 'rq:results:' .. id
  local added = redis.pcall('XADD', results, '*', 'type', kind, 'worker_name', caller.worker, 'execution_id', execution, ...)
  if added.err then return corrupt.set_aside(id, added.err) end
  if is_bounded then redis.call('XTRIM', results, 'MAXLEN', '~', MOST_RESULTS) end
  if ttl > 0 then redis.call('EXPIRE', results, ttl) end
end

-- Keep the record of an ended job for so many seconds, or for ever.
function ending.keep(id, ttl)
  if ttl > 0 then
    redis.call('EXPIRE', records.key(id), ttl)
  else
    redis.call('PERSIST', records.key(id))
  end
end

-- Add an ended job to RQ's registry of its queue.
function ending.register(id, queue, status, ttl)
  local registry = status == 'finished' and 'rq:finished:' or 'rq:failed:'
  gathered.add('ZADD', registry .. queue, ttl < 0 and '+inf' or math.floor(clock.now + ttl), id)
end

return ending
