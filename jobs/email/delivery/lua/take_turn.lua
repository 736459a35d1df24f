-- Let mails to a domain go that was slowed, or say how long they wait for their turn.
-- requires: coordination/redis/clock, paces
--
-- KEYS[1]  the domain's pace
-- ARGV[1]  how many mails
-- Returns  microseconds to wait, 0 if they may go
--
-- Those that wait are given turns one after another, so that they don't all come back at once.

local key = KEYS[1]
local count = tonumber(ARGV[1])

local now = clock.microseconds
local interval, next_at, line_at = paces.read(key)
if not interval then return 0 end

local wait = 0
if next_at > now then
  line_at = math.max(line_at, next_at)
  wait = line_at - now
  line_at = math.min(line_at + count * interval, now + paces.LONGEST)
else
  next_at = now + count * interval
end
redis.call('SET', key, paces.text(interval, next_at, line_at), 'KEEPTTL')
return wait
