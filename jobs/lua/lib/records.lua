-- Records: the hashes that hold jobs. A record may be gone, or its key may hold another type.

local records = {}

function records.key(id) return 'rq:job:' .. id end

-- The values of fields, false for one that is not there; or a table with `err` alone, if the key is no record.
function records.read(id, ...) return redis.pcall('HMGET', 'rq:job:' .. id, ...) end

-- All fields by their names; or a table with `err` alone, if the key is no record or has more than `most` of them.
-- `count` is the reply to HLEN, if that was asked before.
function records.all(id, most, count)
  count = count or redis.pcall('HLEN', 'rq:job:' .. id)
  if type(count) ~= 'number' then return count end
  if count > most then return {err = 'the record has ' .. count .. ' fields'} end
  local values, fields = redis.call('HGETALL', 'rq:job:' .. id), {}
  for i = 1, #values, 2 do fields[values[i]] = values[i + 1] end
  return fields
end

-- The text of one field, or nothing.
function records.get(id, field)
  local value = redis.pcall('HGET', 'rq:job:' .. id, field)
  return type(value) == 'string' and value or nil
end

function records.exists(id) return redis.call('EXISTS', 'rq:job:' .. id) == 1 end

-- Delete what RQ's readers know of one execution.
function records.forget_execution(id, execution)
  redis.call('DEL', 'rq:executions:' .. id, 'rq:execution:' .. id .. ':' .. execution)
end

-- Whether an execution is of a job's callback or webhooks, and not of the job itself.
function records.is_callback(execution) return execution:sub(-1) == 'c' end

-- Whether a job of this status has yet to end.
function records.is_pending(status)
  return status == 'queued' or status == 'started' or status == 'scheduled' or status == 'deferred'
end

return records
