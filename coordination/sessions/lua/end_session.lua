-- End one session, if it is of the user that the caller names.
-- requires: hashes, announce
--
-- KEYS[1]  the session
-- ARGV[1]  its hash    ARGV[2]  the user as part of keys, "" for anybody
-- ARGV[3]  what the keys of indexes begin with
-- Returns  1 if it was there, 0 if not

local session = KEYS[1]
local hash, user, indexes_prefix = ARGV[1], ARGV[2], ARGV[3]

local by = hashes.read(session, 'by')[1]
if not by or user ~= '' and by ~= user then return 0 end
redis.pcall('ZREM', indexes_prefix .. by, hash)
redis.call('DEL', session)
announce.ended(indexes_prefix .. by)
return 1
