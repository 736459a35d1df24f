-- Placing new jobs that have more than a place in their queue's list. enqueue.lua describes runs of jobs.
-- requires: groups, guarded, queues, scheduled
-- may use: singletons

local placing = {}

-- Give a job the place where it waits. That comes before its record: a record without a place would count as enqueued.
-- If it replaces one that waits in the queue `origin`, it has that one's id.
function placing.place(run, id, own, due, origin)
  local queue, place, group = run[1], run[2], own[4]
  if place == 'back' or place == 'front' then
    if group then singletons.replace(queue, group, own[5]) end
    groups.join(queue, group, id, place == 'back' and 'RPUSH' or 'LPUSH', run[8] or 0)
  elseif place == 'held' then
    guarded.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  else
    guarded.call('ZADD', scheduled.key(queue), string.format('%.6f', due), id)
    scheduled.due(queue, due)
  end
  queues.register(queue)
  if origin and origin ~= queue then redis.call('ZREM', scheduled.key(origin), id) end
end

-- The fields of a run and those that one of its jobs has besides.
function placing.fields(run, own, due, since)
  local fields = {unpack(run[3])}
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  local call, _, uniqueness, group, limits, takes = unpack(own, 1, 6)
  if group then add('group', group) end
  if limits then add('limits', limits) end
  if takes then add('takes', takes) end
  if call then add('call', call) end
  if uniqueness then add('unique', uniqueness[1]) end
  if since then add('debounced_since', string.format('%.6f', since)) end
  if run[5] then -- by this server's clock; one that is called back has its time from then on
    add(run[2] == 'held' and 'expires' or 'expires_at', string.format('%.6f', due + run[5]))
  end
  return fields
end

return placing
