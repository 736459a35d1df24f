-- Give groups a new ticket whose own was lost, and let those look again that are parked though nothing keeps them.
--
-- KEYS[1]  the groups of one queue    ARGV[1]  the queue    ARGV[2]  where to go on, "0" at first
-- Returns  where to go on, "0" after the last

local queue = ARGV[1]
local time = redis.call('TIME')
local has_list = redis.call('EXISTS', 'rq:queue:' .. queue) == 1
local found = groups.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 100)

for i = 1, #found[2], 2 do
  local group, ticket = found[2][i], found[2][i + 1]
  if ticket == '' or not has_list or redis.pcall('HGET', 'rq:job:' .. ticket, 'status') ~= 'queued' then
    groups.mend(queue, group, ticket, tonumber(time[1]))
  end
end

return found[1]
