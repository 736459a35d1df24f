-- Extend a lock if the caller holds it, and raise the counter to the holder's token.
-- requires: locked
--
-- KEYS[1]  the lock    KEYS[2]  its counter
-- ARGV[1]  the holder's value    ARGV[2]  the TTL in milliseconds    ARGV[3]  the token
-- ARGV[4]  seconds to keep the counter
-- ARGV[5]  1 if this node votes: it then grants the lock to a holder whose lock it lost or never had
-- Returns  1 if the holder has the lock here, 0 if not

local lock, counter = KEYS[1], KEYS[2]
local value, ttl_ms, token, counter_ttl, has_vote = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'

local holder = locked.by(lock)
if holder == value then
  redis.call('PEXPIRE', lock, ttl_ms)
elseif not holder and has_vote then
  redis.call('SET', lock, value, 'PX', ttl_ms)
else
  return 0
end
if locked.count(counter) < tonumber(token) then
  redis.call('SET', counter, token, 'EX', counter_ttl)
end
return 1
