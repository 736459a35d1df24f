-- Queues: the lists of the ids of waiting jobs, the next at the head. Only this file knows their keys.
-- requires: guarded
-- may use: quarantine

local queues = {}

local PREFIX = 'rq:queue:'

function queues.key(name) return PREFIX .. name end

function queues.name(key) return key:sub(#PREFIX + 1) end

-- Add a job, by "RPUSH" or "LPUSH".
function queues.push(name, id, push) return guarded.call(push, PREFIX .. name, id) end

-- Add an array of jobs.
function queues.push_all(name, ids, push) return guarded.call(push, PREFIX .. name, unpack(ids)) end

-- Remove a job; how many were there.
function queues.remove(name, id) return guarded.call('LREM', PREFIX .. name, 1, id) end

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
