-- Make schedules due that lost their next tick, for example because a key was lost.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded, scheduler/fence
--
-- KEYS[1]  the schedules    KEYS[2]  the schedules by their next tick    ARGV[1]  a cursor, "0" at first
-- ARGV[2]  the leader's term
-- Returns  the next cursor, "0" after the last, and how many became due; "not leading" if another leads

local schedules, by_next_tick = KEYS[1], KEYS[2]
local cursor, term = ARGV[1], ARGV[2]

local call = guarded.call
if not fence.leads(term) then return 'not leading' end

local repaired = 0
local found = call('HSCAN', schedules, cursor, 'COUNT', 200)

for i = 1, #found[2], 2 do
  local name = found[2][i]
  if not call('ZSCORE', by_next_tick, name) then
    local flags = call('HMGET', 'pm:schedule:' .. name, 'paused', 'removed', 'ended')
    if not (flags[1] or flags[2] or flags[3]) then
      repaired = repaired + redis.call('ZADD', by_next_tick, clock.second, name)
    end
  end
end

events.write()
return {found[1], repaired}
