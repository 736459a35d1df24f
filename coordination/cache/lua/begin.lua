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

local entry, lease, tags = KEYS[1], KEYS[2], {unpack(KEYS, 3)}
local claim, lease_ms, seen, new_version, tags_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local caller_length = #claim
for _, tag in ipairs(tags) do
  local version = redis.call('GET', tag)
  if not version then
    version = new_version
    redis.call('SET', tag, version, 'PX', tags_ms)
  elseif redis.call('PTTL', tag) < tonumber(tags_ms) then
    redis.call('PEXPIRE', tag, tags_ms)
  end
  claim = claim .. ' ' .. version
end
if seen ~= 'any' then
  -- The id follows the four bytes of the entry's mark.
  if redis.call('GETRANGE', entry, 4, 19) ~= seen then
    return {'changed'}
  end
  local held = redis.call('GET', lease)
  if held and held ~= claim and held:sub(caller_length + 1) == claim:sub(caller_length + 1) then
    return {'busy', redis.call('PTTL', lease)}
  end
end
redis.call('SET', lease, claim, 'PX', lease_ms)
return {'mine', claim}
