-- Store a computed value and wake waiters, unless the lease was lost or a tag was invalidated meanwhile.
--
-- KEYS[1]  the entry    KEYS[2]  its lease    KEYS[3...]  its tags, in the order of the lease
-- ARGV[1]  the claim    ARGV[2]  the length of its first word    ARGV[3]  the entry
-- ARGV[4]  milliseconds to keep it    ARGV[5]  the channel of the waiters
-- Returns  1 if it was stored, 0 if not

local kept = 0
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return kept
end
local versions = ''
for index = 3, #KEYS do
  versions = versions .. ' ' .. (redis.call('GET', KEYS[index]) or '')
end
if versions == string.sub(ARGV[1], ARGV[2] + 1) then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
  -- An entry whose tag is gone is invalid, so the tags live at least as long as the entry.
  for index = 3, #KEYS do
    if redis.call('PTTL', KEYS[index]) < tonumber(ARGV[4]) then
      redis.call('PEXPIRE', KEYS[index], ARGV[4])
    end
  end
  kept = 1
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[5], 'computed')
return kept
