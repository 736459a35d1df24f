-- Read a session, and let it go on; written at most once in a while.
-- requires: coordination/redis/clock, sessions
--
-- KEYS[1]  the session
-- ARGV[1]  its hash    ARGV[2]  what the keys of ends of all sessions begin with
-- ARGV[3]  milliseconds that it may be idle    ARGV[4]  seconds after which its use is noted again
-- Returns  what is known of it, or nothing if it is over

local session = KEYS[1]
local hash, endings_prefix, idle_ms, every = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local found = sessions.read(session, endings_prefix)
if not found then return end
if math.abs(clock.now - found.seen) >= every then
  -- A full memory or a replica may refuse to note it; the session is read all the same.
  local noted = redis.pcall('HSET', session, 'seen', string.format('%.3f', clock.now))
  if type(noted) == 'number' then sessions.extend(session, found.ends, idle_ms) end
end
return sessions.shown(hash, found)
