-- Reserve mails for a run of a job, unless they were sent or are not to be sent, and tell what is known of each.
-- requires: coordination/redis/clock, jobs/caller, jobs/email/suppression/suppressions, jobs/events, mails
--
-- KEYS[1]  the claims of the run's worker    KEYS[2]  the job's record    KEYS[3]  the list of suppressed addresses
-- KEYS[4]  the send's counts    KEYS[5]  KEYS[6]  KEYS[7]  KEYS[8]  the indexes    KEYS[9+]  the mails
-- ARGV[1]  msgpack: [now as RQ's text, job, execution, life, the job as it is stored, send, key, batch, 1 if the mails are
--          counted, whether the job's own life matters, whether unknown ones are sent again, whether refused ones are,
--          the origin under which they are marked as being sent if all are new, or nothing,
--          [recipient, it as it is suppressed, its domain, the execution that held it and is over or ""] for each mail]
-- Returns  false if the worker has lost its claim; otherwise the job's origin, and now if all are marked as being sent, or
--          else each mail's entry as msgpack: [state, reply, changed, job, execution, claims, began, tries, due,
--          request]

local claims, record, suppressed = KEYS[1], KEYS[2], KEYS[3]
local counts, indexes, entries = KEYS[4], {KEYS[5], KEYS[6], KEYS[7], KEYS[8]}, {unpack(KEYS, 9)}
local request = cmsgpack.unpack(ARGV[1])

local now_text, id, execution, life, job = unpack(request, 1, 5)
local send, key, batch, counted, has_origin, resends, reopens, likely, asked = unpack(request, 6, 14)

if redis.call('HGET', claims, id) ~= execution then return false end
caller.at, caller.worker = now_text, claims:sub(#'pm:claims:' + 1)
mails.life, mails.counts, mails.indexes = life, counts, indexes

-- A job's id may be used again, and a job may repeat: each time it sends its mails anew.
local origin = ''
if has_origin then
  local fields = redis.call('HMGET', record, 'created_at', 'repeats_left')
  origin = redis.sha1hex((fields[1] or '') .. '|' .. (fields[2] or '')):sub(1, 8)
end

-- Whether an unknown mail may be asked for by the request that its provider knows.
local function may_ask(entry) return entry.job == job and entry.request ~= '' end

-- The state of a mail from now on, or nothing if this run leaves it as it is. One that is unknown stays that until it's
-- marked, so that a run which ends before it tries leaves no other trace.
local function judged(entry, over)
  local state, is_own_job = entry.state, entry.job == job
  if state == 'd' or state == 'n' or (state == 'x' and (reopens or not is_own_job)) then return 'r' end
  if state == 'u' then return (resends or entry.is_broken or may_ask(entry)) and 'u' or nil end
  local is_free = is_own_job or entry.job == '' or entry.execution == over
  if state == 'a' or state == 'x' or not is_free or entry.execution == execution then return nil end
  return state == 'r' and 'r' or 'u'
end

local found, may_mark = {}, likely == origin
for number, each in ipairs(asked) do
  local _, address, domain, over = unpack(each)
  local mail = entries[number]
  local entry = mails.read(mail)
  if entry and not entry.is_broken and entry.origin ~= origin then
    mails.drop(mail, entry)
    entry = nil
  end
  may_mark = may_mark and not entry
  local before = entry and not entry.is_broken and entry.state or nil
  entry = entry or {state = 'd', reply = '', counted = counted, began = 0, tries = 0, due = 0, request = ''}
  local state = judged(entry, over)
  if state == 'u' and before == 's' then entry.reply = 'the run ended while this was sent' end
  local is_wanted = state == 'r' or (state == 'u' and (resends or may_ask(entry)))
  local reason = is_wanted and suppressions.reason(suppressed, address, domain)
  if reason then state, entry.reply, may_mark = 'n', reason, false end
  found[number] = {entry, before, state}
end

local reply = {origin, may_mark and math.floor(clock.now) or nil}
for number, each in ipairs(found) do
  local entry, before, state = unpack(each, 1, 3)
  if state then
    entry.began = entry.began == 0 and math.floor(clock.now) or entry.began
    entry.state, entry.recipient, entry.job, entry.origin = may_mark and 's' or state, asked[number][1], job, origin
    entry.execution, entry.claims, entry.send, entry.key, entry.batch = execution, claims, send, key, batch
    mails.write(entries[number], entry, before)
  else
    mails.renew(entries[number], entry)
  end
  if not may_mark then
    reply[number + 1] = cmsgpack.pack({
      entry.state, entry.reply, entry.changed, entry.job, entry.execution, entry.claims, entry.began, entry.tries, entry.due,
      entry.request,
    })
  end
end
mails.count()
events.write()
return reply
