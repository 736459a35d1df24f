-- Give groups a new ticket whose own was lost, and let those look again that are parked though nothing keeps them.
--
-- KEYS[1]  the groups of one queue    ARGV[1]  the queue    ARGV[2]  where to go on, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  where to go on, "0" after the last, and how many groups were seen; "not leading" if another leads

if ARGV[3] ~= '' and not leads(ARGV[3]) then return 'not leading' end

-- Look again at a group: one that is parked though nothing keeps it, and one whose ticket was lost, go on.
local function repair(queue, group, ticket, now)
  local key, name = groups.members_of(queue, group), queue .. '\n' .. group
  for _ = 1, 1000 do
    local first = call('LINDEX', key, 0)
    if not first or redis.call('EXISTS', 'rq:job:' .. first) == 1 then break end
    call('LPOP', key)
  end
  if ticket ~= '' then return groups.leave(queue, group, ticket) end
  local due = tonumber(call('ZSCORE', 'pm:due', name))
  if due and due <= now + groups.LONGEST_PARK then return end
  local first = call('LINDEX', key, 0)
  local needs = first and redis.pcall('HGET', 'rq:job:' .. first, 'gates')
  for _, gate in ipairs(not due and gates.parse(type(needs) == 'string' and needs) or {}) do
    if gate[1] ~= 'rate' and not gates.has_slot(gate, first, '\n') then
      return call('ZADD', 'pm:blocked:' .. gate[2], 'NX', 0, name)
    end
  end
  call('ZREM', 'pm:due', name)
  groups.wake(name)
end

local queue = ARGV[1]
local time = redis.call('TIME')
local has_list = redis.call('EXISTS', 'rq:queue:' .. queue) == 1
local found = call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 100)

for i = 1, #found[2], 2 do
  local group, ticket = found[2][i], found[2][i + 1]
  if ticket == '' or not has_list or redis.pcall('HGET', 'rq:job:' .. ticket, 'status') ~= 'queued' then
    repair(queue, group, ticket, tonumber(time[1]))
  end
end

return {found[1], #found[2] / 2}
