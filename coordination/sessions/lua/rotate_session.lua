-- Give a session another id; the old one is over in the same step.
-- requires: coordination/redis/clock, indexes, sessions
--
-- KEYS[1]  the session under its old id    KEYS[2]  under its new one
-- ARGV[1]  its old hash    ARGV[2]  its new hash    ARGV[3]  what the keys of ends of all sessions begin with
-- ARGV[4]  what the keys of indexes begin with    ARGV[5]  milliseconds that it may be idle
-- ARGV[6]  data to be its data, JSON, or "" to keep what it has
-- Returns  1, or 0 if it is over
--
-- Repeated after a lost reply, the script finds the new id, which only its caller knows.

local old, new = KEYS[1], KEYS[2]
local old_hash, new_hash, endings_prefix, indexes_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local idle_ms, data = tonumber(ARGV[5]), ARGV[6]

if sessions.read(new, endings_prefix) then return 1 end
local found = sessions.read(old, endings_prefix)
if not found then return 0 end
local index = indexes_prefix .. found.by
redis.call('HSET', old, 'seen', string.format('%.3f', clock.now), 'data', data == '' and found.data or data)
redis.call('RENAME', old, new)
sessions.extend(new, found.ends, idle_ms)
indexes.add(index, new_hash, found.ends)
redis.call('ZREM', index, old_hash)
return 1
