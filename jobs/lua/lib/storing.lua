-- Storing new jobs, each in its queue or among the scheduled ones. enqueue.lua describes a job.
-- requires: events, gone, guarded, queues, records
-- may use: groups, scheduled, singletons

local storing = {}

local listed = {} -- the queues that this call has registered
storing.has_scheduled = false

-- The place comes before the record: a record without a place would count as enqueued.
local function put(id, queue, place, due, group)
  if place == 'back' or place == 'front' then
    local push = place == 'back' and 'RPUSH' or 'LPUSH'
    if group then groups.join(queue, group, id, push) else queues.push(queue, id, push) end
  elseif place == 'held' then
    guarded.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  else
    guarded.call('ZADD', scheduled.key(queue), string.format('%.6f', due), id)
    scheduled.due(queue, due)
    storing.has_scheduled = true
  end
  if not listed[queue] then
    queues.register(queue)
    listed[queue] = true
  end
end

local function add(fields, name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

local function limits_in(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'limits' then return fields[i + 1] end
  end
end

-- Store a job that nothing keeps out; if it replaces another one, under that one's id.
function storing.store(job, payload, due, replaced, origin, since)
  local id, call, queue, place, _, fields, uniqueness_of, group, _, expires = unpack(job, 1, 10)
  local key = uniqueness_of and uniqueness_of[1]
  local target = replaced or id
  local record = records.key(target)
  local is_waiting = place == 'back' or place == 'front'
  if group and is_waiting then singletons.replace(queue, group, limits_in(fields)) end
  put(target, queue, place, due, group)
  if replaced then
    redis.call('DEL', record)
    if origin ~= queue then
      redis.call('ZREM', scheduled.key(origin), target)
    end
    gone.into(id, target)
  end
  if call ~= '' then add(fields, 'call', call) end
  if key then add(fields, 'unique', key) end
  if since then add(fields, 'debounced_since', string.format('%.6f', since)) end
  if expires then -- by this server's clock; one that is called back has its time from then on
    add(fields, place == 'held' and 'expires' or 'expires_at', string.format('%.6f', (due or 0) + expires))
  end
  redis.call('HSET', record, 'data', payload, unpack(fields))
  if place ~= 'held' then
    events.emit(is_waiting and 'enqueued' or 'scheduled', target, queue, nil, not is_waiting and {due = due} or nil)
  end
end

return storing
