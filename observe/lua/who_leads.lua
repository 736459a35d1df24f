-- Read the leader, as this server knows it.
-- requires: coordination/redis/clock
--
-- KEYS[1]  the leader
-- Returns  its name, term, since and until (Unix seconds), and the time by this server's clock; nothing if there is none

local leader = KEYS[1]

local found = redis.pcall('HMGET', leader, 'name', 'term', 'since', 'until')
if not (found[1] and found[2] and found[3] and found[4]) then return false end
found[5] = string.format('%.6f', clock.now)
return found
