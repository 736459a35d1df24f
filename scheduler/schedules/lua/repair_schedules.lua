-- Make schedules due that lost their next tick, for example because a key was lost.
--
-- KEYS[1]  the schedules    KEYS[2]  the schedules by their next tick    ARGV[1]  a cursor, "0" at first
-- ARGV[2]  the leader's term
-- Returns  the next cursor, "0" after the last, and how many became due; "not leading" if another leads

if not leads(ARGV[2]) then return 'not leading' end

local repaired = 0
local found = call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 200)

for i = 1, #found[2], 2 do
  local name = found[2][i]
  if not call('ZSCORE', KEYS[2], name) then
    local flags = call('HMGET', 'pm:schedule:' .. name, 'paused', 'removed', 'ended')
    if not (flags[1] or flags[2] or flags[3]) then
      repaired = repaired + redis.call('ZADD', KEYS[2], script_began[1], name)
    end
  end
end

write_events()
return {found[1], repaired}
