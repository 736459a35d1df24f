-- Callbacks: once a job's outcome is recorded, its RQ callback is called, and then its webhooks. Until both are done the
-- job stays claimed, or its id waits in its queue.
-- requires: caller, coordination/redis/clock, guarded, queues, records
-- may use: belongings, ending, groups, scheduled, steps
--
-- `callback_due` in the record says what is due: "<step> <status> <kind> <place> <value> <execution>". The step is
-- "callback" or "webhooks", the status is the one that the outcome left, and the kind is "success", "failure" or
-- "stopped". The place says what follows: "end" (a TTL), "queue" ("front" or "back") or "at" (a Unix time). Only the
-- execution that claimed it last may settle or postpone it, since RQ's code may enqueue the job again meanwhile.

local callbacks = {}

local LONGEST = 604800 -- seconds that an ended job is kept in addition, if somebody takes its id off its queue
local FURTHEST = 1e11 -- seconds, beyond all calendars

-- The value of a place. If somebody wrote one that is none, what follows comes at once, or ends after a week.
local function sound(place, value)
  if place == 'queue' then return value end
  local number = tonumber(value)
  local is_sound = number and number >= -1 and number <= FURTHEST -- "nan" is not
  if place == 'at' then return is_sound and value or '0' end
  return is_sound and math.floor(number) or LONGEST
end

local function group_of(id) return 'callback ' .. id end

-- What is due for a job of this status: step, kind, place and value, or nothing. `text` is the field, if it was read.
function callbacks.due(id, status, text)
  text = text or records.get(id, 'callback_due') or ''
  local step, of, kind, place, value = text:match('^(%a+) (%a+) (%a+) (%a+) (%S+) ?%S*$')
  if of and of == status then return step, kind, place, sound(place, value) end
end

-- Whether what is due was claimed under this execution, and by nobody since.
function callbacks.is_held(id, execution)
  return (records.get(id, 'callback_due') or ''):match('(%S*)$') == execution
end

-- Whether a callback, or after it webhooks, are due for a job whose outcome was recorded with this status.
function callbacks.begin(id, status, kind, place, value, is_called)
  local name, hooks = unpack(records.read(id, kind .. '_callback_name', 'webhooks'))
  local step = not is_called and name and name ~= '' and 'callback'
    or hooks and hooks ~= '' and kind ~= 'stopped' and place == 'end' and 'webhooks'
  if not step then return false end
  redis.call('HSET', records.key(id), 'callback_due', table.concat({step, status, kind, place, value, ''}, ' '))
  redis.call('HDEL', records.key(id), 'deaths', 'unknown_since')
  return true
end

-- For how long to keep an ended job while its callback is due, instead of its TTL; -1 for ever.
function callbacks.keep(ttl) return ttl < 0 and -1 or ttl + LONGEST end

-- Let a job whose callback or webhooks are still due wait for the next claim; with a delay, in a group of its own.
function callbacks.postpone(id, queue, delay)
  if delay and delay > 0 then return groups.block(queue, group_of(id), id, nil, clock.now + delay) end
  queues.push(queue, id, 'LPUSH')
end

-- A job's callback waits no more, for the job's id was claimed, or the job is enqueued again or canceled: then the id
-- may also be in its queue's list. In how many places it was.
function callbacks.leave(id, queue, is_listed)
  local places = is_listed and queues.remove(queue or '', id) or 0
  return places + groups.drop(queue or '', group_of(id), id)
end

-- A step is done, or given up: begin the next one, or do what follows them. Whether another step is due.
function callbacks.settle(id, queue)
  local status, text = unpack(records.read(id, 'status', 'callback_due'))
  local step, kind, place, value = callbacks.due(id, status, text)
  redis.pcall('HDEL', records.key(id), 'callback_due', 'unknown_since')
  if not step then return false end -- it was canceled or enqueued again meanwhile
  if step == 'callback' and callbacks.begin(id, status, kind, place, value, true) then return true end
  if place == 'queue' then
    redis.call('HSET', records.key(id), 'status', 'queued')
    queues.push(queue, id, value == 'front' and 'LPUSH' or 'RPUSH')
  elseif place == 'at' then
    guarded.call('ZADD', scheduled.key(queue), value, id)
    scheduled.due(queue, tonumber(value))
  else
    ending.expire(id, value, kind == 'success')
    if value > 0 then steps.keep(id, value) end
  end
  return false
end

-- Do what follows the callbacks without calling them.
function callbacks.give_up(id, queue)
  while callbacks.settle(id, queue) do end
  belongings.follow(id)
end

-- Claim the step that is due under an execution, which may have done so before. What a worker needs for it: step, kind,
-- the whole record, the last result, and when it was first unknown in seconds from now; or nothing.
function callbacks.claim(id, status, execution, again)
  local step, kind, place, value = callbacks.due(id, status)
  if not step or again and not callbacks.is_held(id, execution) then return end
  redis.call('HSET', records.key(id), 'callback_due', table.concat({step, status, kind, place, value, execution}, ' '),
    'worker_name', caller.worker) -- the first one that a retry asks whether it still runs
  local last = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)[1]
  local since = clock.seconds_to(records.get(id, 'unknown_since'))
  return {step, kind, redis.call('HGETALL', records.key(id)), last and last[2] or {}, since or false}
end

return callbacks
