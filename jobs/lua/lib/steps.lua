-- Steps: what a job has done or waits for, so that its next run goes on behind that. jobs/steps.py describes the values.
-- requires: coordination/redis/clock, records
--
-- pm:steps:<id>  a hash of "<kind>:<name>" to JSON; `steps` in the record says that these are its own

local steps = {}

local MOST_FIELDS, MOST_BYTES = 1100, 524288

function steps.key(id) return 'pm:steps:' .. id end

-- Begin to keep the steps of a job whose code has this version; whether the job is there. What an earlier job of this
-- id has left is deleted.
function steps.open(id, version)
  local is_new = records.exists(id) and redis.pcall('HSETNX', records.key(id), 'steps', version)
  if is_new == 1 then redis.call('UNLINK', steps.key(id)) end
  return type(is_new) == 'number'
end

-- Write a field; whether the key is a hash. If it's none, the next claim fails the job, since its steps are lost.
function steps.put(id, field, value)
  local written = redis.pcall('HSET', steps.key(id), field, value)
  if type(written) == 'number' then return true end
  if not written.err:find('WRONGTYPE', 1, true) then redis.call('HSET', steps.key(id), field, value) end -- raises it
  return false
end

function steps.get(id, field)
  local value = redis.pcall('HGET', steps.key(id), field)
  return type(value) == 'string' and value or ''
end

-- All fields and values in turn, or the reason why they can't be read.
function steps.read(id)
  local count = redis.pcall('HLEN', steps.key(id))
  if type(count) ~= 'number' then return 'its steps are no hash' end
  if count > MOST_FIELDS then return 'it has ' .. count .. ' steps' end
  local found, bytes = redis.call('HGETALL', steps.key(id)), 0
  for _, each in ipairs(found) do bytes = bytes + #each end
  return bytes <= MOST_BYTES and found or 'its steps take ' .. bytes .. ' bytes'
end

-- Keep them, if the job has any, as long as its record: for so many seconds, or for ever.
function steps.keep(id, ttl)
  if not records.get(id, 'steps') then return end
  if ttl <= 0 then return redis.call('PERSIST', steps.key(id)) end
  redis.call('PEXPIREAT', steps.key(id), clock.millisecond + ttl * 1000)
end

-- An operator lets an ended job run again, behind its steps. A step whose end is unknown may be done again.
function steps.go_on(id)
  if not records.get(id, 'steps') then return end
  redis.call('PERSIST', steps.key(id))
  redis.call('HSET', records.key(id), 'retried_at', string.format('%.6f', clock.now))
end

-- The job's next run begins from nothing.
function steps.forget(id)
  redis.call('HDEL', records.key(id), 'steps', 'waits', 'waits_since')
  redis.call('UNLINK', steps.key(id))
end

return steps
