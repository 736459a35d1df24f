-- Give groups a new ticket whose own was lost, and let those look again that are parked for a slot.
--
-- KEYS[1]  the groups of one queue    ARGV[1]  the queue    ARGV[2]  where to go on, "0" at first
-- Returns  where to go on, "0" after the last

local queue = ARGV[1]
local has_list = redis.call('EXISTS', 'rq:queue:' .. queue) == 1
local found = redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 100)

for i = 1, #found[2], 2 do
  local group, ticket = found[2][i], found[2][i + 1]
  if ticket == '' then
    local name = queue .. '\n' .. group
    if not redis.call('ZSCORE', 'pm:due', name) then groups.wake(name) end
  elseif not has_list or redis.pcall('HGET', 'rq:job:' .. ticket, 'status') ~= 'queued' then
    groups.leave(queue, group, ticket)
  end
end

return found[1]
