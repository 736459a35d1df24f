-- Extend a lock if the caller holds it, and raise the counter to the holder's token.
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  the holder's value    ARGV[2]  the TTL in milliseconds    ARGV[3]  the token
-- ARGV[4]  seconds to keep the counter
-- ARGV[5]  1 if this node votes: it then grants the lock to a holder whose lock it lost or never had
-- Returns  1 if the holder has the lock here, 0 if not

local found = holder(KEYS[1])
if found == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif not found and ARGV[5] == '1' then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  return 0
end
if count(KEYS[2]) < tonumber(ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4])
end
return 1
