-- Note in the reply of an accepted mail what was reported of it afterwards. It is kept no longer for that.
-- requires: jobs/caller, jobs/events, mails
--
-- KEYS[1]  the mail
-- ARGV[1]  now as RQ's text    ARGV[2]  the entry's reply
-- Returns  1 if it is so now, 0 if it was not accepted, or if the reply is the same already

local mail = KEYS[1]
local now_text, reply = ARGV[1], ARGV[2]

caller.at = now_text

local entry = mails.read(mail)
local is_news = entry and entry.state == 'a' and entry.reply ~= reply
if is_news then
  mails.life = math.max(redis.call('PTTL', mail), 1) / 1000
  entry.reply = reply
  mails.write(mail, entry, entry.state)
end
mails.count()
events.write()
return is_news and 1 or 0
