-- Storing new jobs, each in its queue or among the scheduled ones. enqueue.lua describes runs of jobs.
-- requires: events, gone, guarded, queues, records
-- may use: groups, scheduled, singletons

local storing = {}

local listed = {} -- the queues that this call has registered
storing.has_scheduled = false

local function register(queue)
  if not listed[queue] then
    queues.register(queue)
    listed[queue] = true
  end
end

local function push_of(place) return place == 'back' and 'RPUSH' or place == 'front' and 'LPUSH' end

-- Give a job the place where it waits. That comes before its record: a record without a place would count as enqueued.
-- If it replaces another one, it has that one's id.
function storing.place(run, job, due, replaced, origin)
  local queue, place, group = run[1], run[2], job[5]
  local id, push = replaced or job[1], push_of(place)
  if push then
    if group then
      singletons.replace(queue, group, job[6])
      groups.join(queue, group, id, push)
    else
      queues.push(queue, id, push)
    end
  elseif place == 'held' then
    guarded.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  else
    guarded.call('ZADD', scheduled.key(queue), string.format('%.6f', due), id)
    scheduled.due(queue, due)
    storing.has_scheduled = true
  end
  register(queue)
  if replaced and origin ~= queue then redis.call('ZREM', scheduled.key(origin), id) end
end

-- Give all jobs of a run, none of which is in a group, their places in the queue's list.
function storing.place_all(run)
  local ids = {}
  for i, job in ipairs(run[6]) do
    ids[i] = job[1]
  end
  queues.push_all(run[1], ids, push_of(run[2]))
  register(run[1])
end

-- The fields of a run and those of one job besides.
local function all_fields(run, job, due, since)
  local shared, call, uniqueness, group, limits = run[3], job[2], job[4], job[5], job[6]
  local expires = run[5]
  if not (call or uniqueness or group or since or expires) then return shared end
  local fields = {unpack(shared)}
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if group then add('group', group) end
  if limits then add('limits', limits) end
  if call then add('call', call) end
  if uniqueness then add('unique', uniqueness[1]) end
  if since then add('debounced_since', string.format('%.6f', since)) end
  if expires then -- by this server's clock; one that is called back has its time from then on
    add(run[2] == 'held' and 'expires' or 'expires_at', string.format('%.6f', due + expires))
  end
  return fields
end

-- Store the record of a job that has its place.
function storing.store(run, job, payload, due, replaced, since)
  local id, queue, place = replaced or job[1], run[1], run[2]
  local record = records.key(id)
  if replaced then
    redis.call('DEL', record)
    gone.into(job[1], id)
  end
  redis.call('HSET', record, 'data', payload, unpack(all_fields(run, job, due, since)))
  if push_of(place) then
    events.emit('enqueued', id, queue)
  elseif place ~= 'held' then
    events.emit('scheduled', id, queue, nil, {due = due})
  end
end

return storing
