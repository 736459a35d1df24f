-- Storing new jobs that have their places. enqueue.lua describes runs of jobs.
-- requires: events, records
-- may use: gone, placing

local storing = {}

-- Store the record of a job. If it replaces another one, it has that one's id.
function storing.store(run, job, payload, due, replaced, since)
  local id, queue, place, fields = replaced or job[1], run[1], run[2], run[3]
  local record = records.key(id)
  if replaced then
    redis.call('DEL', record)
    gone.into(job[1], id)
  end
  if job[2] or job[4] or job[5] or run[5] then fields = placing.fields(run, job, due, since) end
  redis.call('HSET', record, 'data', payload, unpack(fields))
  if place == 'back' or place == 'front' then
    events.emit('enqueued', id, queue)
  elseif place ~= 'held' then
    events.emit('scheduled', id, queue, nil, {due = due})
  end
end

return storing
