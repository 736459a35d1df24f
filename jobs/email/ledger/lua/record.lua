-- Record how mails ended, and that others are being sent now, unless another run has them.
-- requires: jobs/caller, jobs/events, mails
-- may use: jobs/email/suppression/suppressions
--
-- KEYS[1]  the claims of the run's worker    KEYS[2]  the list of suppressed addresses    KEYS[3]  the send's counts
-- KEYS[4]  KEYS[5]  KEYS[6]  KEYS[7]  the indexes    KEYS[8+]  the mails that ended, then those that are sent now
-- ARGV[1]  msgpack: [now as RQ's text, job, execution, life, the job as it is stored, 1 if the mails are counted, the job's origin,
--          [recipient, state or "" for one that was not tried, reply, tries, due, the address to suppress or ""] for each
--          that ended, [the recipient as it is suppressed, its domain] for each that is sent now]
-- Returns  1 if those of now are marked as being sent, 0 if not: another run has one, or one is suppressed by now

local claims, suppressed, counts, indexes = KEYS[1], KEYS[2], KEYS[3], {KEYS[4], KEYS[5], KEYS[6], KEYS[7]}
local entries = {unpack(KEYS, 8)}
local now_text, id, execution, life, job, counted, origin, ended, sent = unpack(cmsgpack.unpack(ARGV[1]))

caller.at, caller.worker = now_text, claims:sub(#'pm:claims:' + 1)
mails.life, mails.counts, mails.indexes = life, counts, indexes

local function is_ours(entry)
  return entry and entry.job == job and entry.execution == execution and (entry.state == 'r' or entry.state == 's')
end

for number, each in ipairs(ended) do
  local recipient, state, reply, tries, due, fault = unpack(each)
  local mail = entries[number]
  local entry = mails.read(mail)
  if entry and entry.is_broken then entry = nil end
  if fault ~= '' then suppressions.add(suppressed, fault, reply, 'refused', 0) end
  if state == 'a' and not (entry and entry.state == 'a') then
    -- The server took it, whoever has it now: nothing is better known.
    entry = entry or {recipient = recipient, counted = counted, origin = origin}
    local before = entry.state
    entry.state, entry.reply, entry.job = state, reply, job
    mails.write(mail, entry, before)
  elseif is_ours(entry) and state == '' and tries == 0 then
    mails.drop(mail, entry)
  elseif is_ours(entry) then
    local before = entry.state
    entry.state = state == '' and 'd' or state
    if state ~= '' then entry.reply, entry.tries, entry.due = reply, tries, due end
    mails.write(mail, entry, before)
  end
end

local begun = {}
local may_begin = redis.call('HGET', claims, id) == execution
for number = #ended + 1, #entries do
  local entry = mails.read(entries[number])
  may_begin = may_begin and is_ours(entry)
  local reason = may_begin and suppressions.reason(suppressed, unpack(sent[number - #ended]))
  if reason then
    local before = entry.state
    entry.state, entry.reply = 'n', reason
    mails.write(entries[number], entry, before)
    may_begin = false
  end
  begun[#begun + 1] = {entries[number], entry}
end
if may_begin then
  for _, each in ipairs(begun) do
    local mail, entry = each[1], each[2]
    if entry.state ~= 's' then
      entry.state = 's'
      mails.write(mail, entry, 'r')
    end
  end
end
events.write()
return may_begin and 1 or 0
