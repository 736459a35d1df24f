-- Send a signal to a job. One that waits for it goes to the front of its queue; otherwise the signal is kept for it.
-- requires: caller, events, guarded, records
-- may use: groups, queues, scheduled, signals
--
-- KEYS[1]  the job's record    KEYS[2]  the mark of this signal, by which it is sent once
-- ARGV[1]  the job    ARGV[2]  the signal's name    ARGV[3]  its data, JSON    ARGV[4]  now as RQ's text
-- ARGV[5]  at most how many signals are kept    ARGV[6]  at most how many bytes of data they have together
-- Returns  "" if there is no such job, "woken" if it waited for that, "kept" if it didn't, "full" if too many are kept,
--          "unasked" if it answers for a step, and the job doesn't wait for that, otherwise the status with which the job
--          has ended

local record, mark = KEYS[1], KEYS[2]
local id, name, data, now_text, most, most_bytes = unpack(ARGV)

local MOST_FIELDS, MARK_SECONDS = 300, 60
caller.at = now_text

local earlier = redis.pcall('GET', mark) -- this call is sent again
if type(earlier) == 'string' then return earlier end
local fields = records.all(id, MOST_FIELDS)
if fields.err or not fields.data then return '' end
local status, queue = fields.status or 'queued', fields.origin or ''
if not records.is_pending(status) and status ~= 'created' then return status end
local count, bytes, last = signals.count(fields)
if count >= tonumber(most) or bytes + #data > tonumber(most_bytes) then return 'full' end

local field = (status == 'scheduled' or status == 'deferred') and (fields.waits or ''):match('^(.+) %S+$')
local is_awaited = field and signals.awaited(field) == name
-- An answer that was kept would be taken when the step breaks off another time.
if name:sub(1, 5) == 'step:' and not is_awaited then return 'unasked' end
local place = status == 'scheduled' and scheduled.key(queue) or 'rq:deferred:' .. queue

redis.call('SET', mark, 'kept', 'EX', MARK_SECONDS)
redis.call('HSET', record, 'signal:' .. string.format('%.0f', last + 1) .. ':' .. name, data)
local verdict = 'kept'
if is_awaited and guarded.call('ZREM', place, id) == 1 then
  verdict = 'woken'
  redis.call('SET', mark, verdict, 'EX', MARK_SECONDS)
  redis.call('HSET', record, 'status', 'queued', 'enqueued_at', now_text)
  groups.join(queue, fields.group, id, 'LPUSH')
  queues.register(queue)
end
events.emit('signaled', id, queue, nil, {signal = name})
events.write()
return verdict
