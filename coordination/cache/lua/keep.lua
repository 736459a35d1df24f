-- Store a computed value and wake waiters, unless the lease was lost or a tag was invalidated meanwhile.
--
-- KEYS[1]  the entry    KEYS[2]  its lease    KEYS[3...]  its tags, in the order of the lease
-- ARGV[1]  the claim    ARGV[2]  the length of its first word    ARGV[3]  the entry
-- ARGV[4]  milliseconds to keep it    ARGV[5]  the channel of the waiters
-- Returns  1 if it was stored, 0 if not

local entry, lease, tags = KEYS[1], KEYS[2], {unpack(KEYS, 3)}
local claim, word_length, value, ttl_ms, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local kept = 0
if redis.call('GET', lease) ~= claim then
  return kept
end
local versions = ''
for _, tag in ipairs(tags) do
  versions = versions .. ' ' .. (redis.call('GET', tag) or '')
end
if versions == claim:sub(word_length + 1) then
  redis.call('SET', entry, value, 'PX', ttl_ms)
  -- An entry whose tag is gone is invalid, so the tags live at least as long as the entry.
  for _, tag in ipairs(tags) do
    if redis.call('PTTL', tag) < tonumber(ttl_ms) then
      redis.call('PEXPIRE', tag, ttl_ms)
    end
  end
  kept = 1
end
redis.call('DEL', lease)
redis.call('PUBLISH', channel, 'computed')
return kept
