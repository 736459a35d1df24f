-- Waiting: a running job gives its process back until a time or a signal, and when it is claimed again, what it waited
-- for has come or not.
-- requires: coordination/redis/clock, jobs/caller, jobs/ending, jobs/events, jobs/gathered, jobs/records
-- may use: jobs/groups, jobs/scheduled, jobs/signals, jobs/steps
--
-- `waits` in the record says for what: a field of its steps, and the Unix time until when, or "inf"; `waits_since` when it
-- began.

local waiting_jobs = {}

local MOST_FIELDS = 300

-- The instant until when a job waits by the value of its step, or nothing if that doesn't wait yet.
local function due_of(value)
  local text = value:match('^%["waits",%d+,[01],(%S+)%]$')
  return text and (tonumber(text) or math.huge)
end

local function place(id, queue, status, due)
  if status == 'queued' then
    groups.join(queue, records.get(id, 'group'), id, 'LPUSH')
  elseif status == 'scheduled' then
    gathered.add('ZADD', scheduled.key(queue), string.format('%.6f', due), id)
    scheduled.due(queue, due)
  else
    gathered.add('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  end
end

-- Let a job wait. `asked` is the version of its code, a field of its steps, the value as far as the time, and for how
-- many seconds, or "" for ever. A wait that goes on keeps its time.
function waiting_jobs.wait(id, queue, asked)
  local version, field, head, seconds = unpack(asked, 2)
  if not steps.open(id, version) then return end
  local due = due_of(steps.get(id, field))
  if not due then
    due = seconds == '' and math.huge or clock.now + seconds
    steps.put(id, field, head .. (due < math.huge and string.format('%.6f', due) or 'null') .. ']')
  end
  local name, status = signals.awaited(field), due < math.huge and 'scheduled' or 'deferred'
  if name and signals.first(records.all(id, MOST_FIELDS), name) then status = 'queued' end
  local till = due < math.huge and string.format('%.6f', due) or 'inf'
  local since = string.format('%.6f', clock.now)
  if not ending.write(id, status, 'waits', field .. ' ' .. till, 'waits_since', since, 'worker_name', '') then return end
  redis.call('HDEL', records.key(id), 'deaths', 'expires_at', 'unknown_since')
  ending.keep(id, -1, true) -- RQ's requeue lets a record expire
  place(id, queue, status, due)
  events.emit('waiting', id, queue, caller.worker, {['until'] = due < math.huge and due or nil, signal = name})
end

-- A job that waited is claimed: its step ends if the time or a signal has come. `fields` are its record's.
function waiting_jobs.wake(id, fields)
  local field, till = fields.waits:match('^(.+) (%S+)$')
  redis.call('HDEL', records.key(id), 'waits', 'waits_since')
  local value = field and steps.get(id, field) or ''
  if not due_of(value) then return end
  local name, number = signals.awaited(field), value:match('^%["waits",(%d+,[01],)')
  local signal, at = name and signals.first(fields, name), string.format('%.6f', clock.now)
  if signal then
    steps.put(id, field, '["done",' .. number .. at .. ',' .. fields[signal] .. ']')
    redis.call('HDEL', records.key(id), signal)
  elseif (tonumber(till) or math.huge) <= clock.now then
    steps.put(id, field, (name and '["late",' or '["done",') .. number .. at .. ']')
  end
end

return waiting_jobs
