-- Storing new jobs that have their places. enqueue.lua describes runs of jobs.
-- requires: events, records
-- may use: placing

local storing = {}

-- Store the record of a job of a run; `own` is what it has alone, or nothing.
function storing.store(run, id, own, payload, due, since)
  local queue, place, fields = run[1], run[2], run[3]
  if own or run[5] then fields = placing.fields(run, own or {}, due, since) end
  redis.call('HSET', records.key(id), 'data', payload, unpack(fields))
  if place == 'back' or place == 'front' then
    events.emit('enqueued', id, queue)
  elseif place ~= 'held' then
    events.emit('scheduled', id, queue, nil, {due = due})
  end
end

return storing
