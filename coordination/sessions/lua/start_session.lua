-- Start a session, unless all sessions of its user were ended since the caller looked.
-- requires: coordination/redis/clock, hashes, endings, indexes, sessions
--
-- KEYS[1]  the session    KEYS[2]  the user's sessions, an index    KEYS[3]  when all of them were last ended
-- ARGV[1]  the session's hash    ARGV[2]  the user    ARGV[3]  the user as part of keys
-- ARGV[4]  the end of all sessions that the caller saw, "any" to start it anyway
-- ARGV[5]  milliseconds that it may be idle    ARGV[6]  seconds until it ends    ARGV[7]  how many a user may have
-- ARGV[8]  what the keys of sessions begin with    ARGV[9]  where it comes from    ARGV[10]  the agent
-- ARGV[11]  data, JSON    ARGV[12]  milliseconds that an end of all sessions is kept
-- Returns  1, or 0 if all sessions were ended meanwhile
--
-- Repeated after a lost reply, the script starts the same session.

local session, index, ending = KEYS[1], KEYS[2], KEYS[3]
local hash, user, by, seen_ending = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle_ms, absolute, most, prefix = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local origin, agent, data, ending_ms = ARGV[9], ARGV[10], ARGV[11], ARGV[12]

if seen_ending ~= 'any' and string.format('%.0f', endings.last(ending)) ~= seen_ending then return 0 end
local now, ends = string.format('%.3f', clock.now), string.format('%.3f', clock.now + absolute)
local after = endings.beginning(ending, ending_ms)
hashes.write(session, 'user', user, 'by', by, 'after', after, 'begun', now, 'seen', now, 'ends', ends, 'origin', origin,
  'agent', agent, 'data', data)
sessions.extend(session, ends, idle_ms)
indexes.make_room(index, prefix, most)
indexes.add(index, hash, ends)
return 1
