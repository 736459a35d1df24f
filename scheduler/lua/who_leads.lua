-- Read the leader, as this server knows it.
--
-- KEYS[1]  the leader
-- Returns  its name, term, since and until (Unix seconds), and the time by this server's clock; nothing if there is none

local found = redis.pcall('HMGET', KEYS[1], 'name', 'term', 'since', 'until')
if found.err or not (found[1] and found[2] and found[3] and found[4]) then return false end
local time = redis.call('TIME')
found[5] = string.format('%.6f', time[1] + time[2] / 1000000)
return found
