-- Take the lease to compute a value, unless another process computes it or the stored entry has changed.
--
-- KEYS[1]  the entry    KEYS[2]  its lease    KEYS[3...]  the entry's tags: a string each, the tag's version
-- ARGV[1]  the caller, one word    ARGV[2]  the lease in milliseconds
-- ARGV[3]  the id of the entry that was seen, "" if there was none, "any" to take the lease from any holder
-- ARGV[4]  a new version for tags without one    ARGV[5]  milliseconds to keep tags at least
-- Returns  {"mine", the claim: ARGV[1] and the tags' versions}, {"changed"}, or {"busy", milliseconds of lease left}
--
-- A holder with older versions of the tags is overtaken, because its value will not be kept. Repeated after a lost
-- reply, the script takes the same lease.

local claim = ARGV[1]
for index = 3, #KEYS do
  local version = redis.call('GET', KEYS[index])
  if not version then
    version = ARGV[4]
    redis.call('SET', KEYS[index], version, 'PX', ARGV[5])
  elseif redis.call('PTTL', KEYS[index]) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', KEYS[index], ARGV[5])
  end
  claim = claim .. ' ' .. version
end
if ARGV[3] ~= 'any' then
  -- The id follows the four bytes of the entry's mark.
  if redis.call('GETRANGE', KEYS[1], 4, 19) ~= ARGV[3] then
    return {'changed'}
  end
  local held = redis.call('GET', KEYS[2])
  if held and held ~= claim and string.sub(held, #ARGV[1] + 1) == string.sub(claim, #ARGV[1] + 1) then
    return {'busy', redis.call('PTTL', KEYS[2])}
  end
end
redis.call('SET', KEYS[2], claim, 'PX', ARGV[2])
return {'mine', claim}
