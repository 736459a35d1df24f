-- End all sessions and refresh tokens of a user, but one session if the caller wants to keep it.
-- requires: ending_all
--
-- KEYS[1]  the user's sessions, an index    KEYS[2]  when all of them were last ended
-- ARGV[1]  what the keys of sessions begin with    ARGV[2]  milliseconds to keep the instant
-- ARGV[3]  how many entries of the index to look at    ARGV[4]  the hash of the session to keep, or ""
-- Returns  how many sessions were there

local index, ending = KEYS[1], KEYS[2]
local prefix, ttl_ms, most, kept = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]

return ending_all.sessions(index, ending, prefix, ttl_ms, most, kept)
