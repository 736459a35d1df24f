-- Say of an unknown mail what somebody found out: that it was sent, or that it was not and is to be sent.
-- requires: jobs/caller, jobs/events, mails
--
-- KEYS[1]  the mail    KEYS[2]  its send's counts    KEYS[3]  KEYS[4]  KEYS[5]  KEYS[6]  the indexes
-- ARGV[1]  now as RQ's text    ARGV[2]  life    ARGV[3]  "a" if it was sent, or "r"    ARGV[4]  the entry's reply
-- ARGV[5]  the execution that sent it and is over, or ""
-- Returns  1 if it is so now, 0 if it was not unknown

local mail, counts, indexes = KEYS[1], KEYS[2], {KEYS[3], KEYS[4], KEYS[5], KEYS[6]}
local now_text, life, state, reply, over = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]

caller.at = now_text
mails.life, mails.counts, mails.indexes = life, counts, indexes

local entry = mails.read(mail)
local is_unknown = entry and (entry.state == 'u' or (entry.state == 's' and over ~= '' and entry.execution == over))
if is_unknown then
  local before = not entry.is_broken and entry.state or nil
  entry.state, entry.reply = state, reply
  if state == 'r' then entry.job, entry.execution, entry.claims, entry.request = '', '', '', '' end
  mails.write(mail, entry, before)
end
mails.count()
events.write()
return is_unknown and 1 or 0
