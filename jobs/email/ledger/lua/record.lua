-- Record how mails ended, and that others are being sent now, unless another run has them.
-- requires: jobs/caller, jobs/events, mails
-- may use: jobs/email/suppression/suppressions
--
-- KEYS[1]  the claims of the run's worker    KEYS[2]  the list of suppressed addresses    KEYS[3]  the send's counts
-- KEYS[4]  KEYS[5]  KEYS[6]  KEYS[7]  the indexes    KEYS[8+]  the mails that ended, then those that are sent now
-- ARGV[1]  msgpack: [now as RQ's text, job, execution, life, the job as it is stored, 1 if the mails are counted, the job's origin,
--          [recipient, state or "" for one that was not tried, reply, tries, due, the address to suppress or "", the request
--          by which its provider knows it or ""] for each that ended, [the recipient as it is suppressed, its domain] for each that is sent now, whether these are apart:
--          a letter to each, of which one may begin although another may not]
-- Returns  a 1 for each of now that is marked as being sent, a 0 for one that is not: another run has it, or it is suppressed

local claims, suppressed, counts, indexes = KEYS[1], KEYS[2], KEYS[3], {KEYS[4], KEYS[5], KEYS[6], KEYS[7]}
local entries = {unpack(KEYS, 8)}
local now_text, id, execution, life, job, counted, origin, ended, sent, are_apart = unpack(cmsgpack.unpack(ARGV[1]))

caller.at, caller.worker = now_text, claims:sub(#'pm:claims:' + 1)
mails.life, mails.counts, mails.indexes = life, counts, indexes

-- An unknown mail is ours if this run is to send it again.
local function is_ours(entry)
  local is_open = entry and (entry.state == 'r' or entry.state == 's' or entry.state == 'u')
  return is_open and entry.job == job and entry.execution == execution
end

for number, each in ipairs(ended) do
  local recipient, state, reply, tries, due, fault, request = unpack(each)
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
    if state ~= '' then entry.reply, entry.tries, entry.due, entry.request = reply, tries, due, request end
    mails.write(mail, entry, before)
  end
end

local has_claim = redis.call('HGET', claims, id) == execution
local begun, may_all = {}, true
for number = #ended + 1, #entries do
  local mail = entries[number]
  local entry = mails.read(mail)
  local may_begin = has_claim and is_ours(entry)
  local reason = may_begin and suppressions.reason(suppressed, unpack(sent[number - #ended]))
  if reason then
    local before = entry.state
    entry.state, entry.reply = 'n', reason
    mails.write(mail, entry, before)
  end
  begun[#begun + 1] = may_begin and not reason and {mail, entry}
  may_all = may_all and begun[#begun]
end
local reply = {}
for number, each in ipairs(begun) do
  local may_begin = each and (are_apart or may_all)
  if may_begin and each[2].state ~= 's' then
    local before = each[2].state
    each[2].state = 's'
    mails.write(each[1], each[2], before)
  end
  reply[number] = may_begin and '1' or '0'
end
mails.count()
events.write()
return table.concat(reply)
