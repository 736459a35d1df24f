-- Queues: the lists of the ids of waiting jobs, the next at the head. Only this file knows their keys.
-- requires: guarded, records
-- may use: bands, quarantine

local queues = {}

local PREFIX = 'rq:queue:'

function queues.key(name) return PREFIX .. name end

function queues.name(key) return key:sub(#PREFIX + 1) end

-- Add a job, by "RPUSH" or "LPUSH". Its priority, 0 for none, is read from its record if it isn't given.
function queues.push(name, id, push, priority)
  priority = priority or records.get(id, 'priority')
  if priority and priority ~= 0 then return bands.push(PREFIX .. name, {id}, push, priority) end
  guarded.call(push, PREFIX .. name, id)
end

-- Add an array of jobs of one priority, or of none.
function queues.push_all(name, ids, push, priority)
  if priority then return bands.push(PREFIX .. name, ids, push, priority) end
  guarded.call(push, PREFIX .. name, unpack(ids))
end

-- Remove a job; how many were there.
function queues.remove(name, id)
  local priority = records.get(id, 'priority')
  if priority then return bands.remove(PREFIX .. name, id, priority) end
  return guarded.call('LREM', PREFIX .. name, 1, id)
end

-- Take up to `most` jobs from the head, as an array.
function queues.take(key, most)
  local ids = redis.pcall('LPOP', key, most) or {}
  if ids.err then
    quarantine.move(key, ids.err)
    return {}
  end
  return ids
end

-- Set a key of another type aside, before jobs leave the place from which they come.
function queues.make_way(name)
  local found = redis.call('TYPE', PREFIX .. name).ok
  if found ~= 'list' and found ~= 'none' then
    quarantine.move(PREFIX .. name, 'the key holds a ' .. found .. ' instead of a list')
  end
end

-- Queues become known when a job is first put in them.
function queues.register(name) guarded.call('SADD', 'rq:queues', PREFIX .. name) end

return queues
