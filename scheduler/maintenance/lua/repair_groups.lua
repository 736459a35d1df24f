-- Give groups that lost their head a new one, and unblock those that nothing blocks any more.
--
-- KEYS[1]  the groups of one queue    ARGV[1]  the queue    ARGV[2]  a cursor, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  the next cursor, "0" after the last, and how many groups were seen; "not leading" if another leads

if ARGV[3] ~= '' and not leads(ARGV[3]) then return 'not leading' end

-- Give a group a new head if it lost its own, or if nothing blocks it any more.
local function repair(queue, group, head)
  local key, name = groups.members_of(queue, group), queue .. '\n' .. group
  for _ = 1, 1000 do
    local first = call('LINDEX', key, 0)
    if not first or redis.call('EXISTS', 'rq:job:' .. first) == 1 then break end
    call('LPOP', key)
  end
  if head ~= '' then return groups.leave(queue, group, head) end
  local due = tonumber(call('ZSCORE', 'pm:due', name))
  if due and due <= now + groups.LONGEST_BLOCK then return end
  local first = call('LINDEX', key, 0)
  local needs = first and redis.pcall('HGET', 'rq:job:' .. first, 'limits')
  for _, limit in ipairs(not due and limits.parse(type(needs) == 'string' and needs) or {}) do
    if limit[1] ~= 'rate' and not limits.has_slot(limit, first, '\n') then
      return call('ZADD', 'pm:blocked:' .. limit[2], 'NX', 0, name)
    end
  end
  call('ZREM', 'pm:due', name)
  groups.unblock(name)
end

local queue = ARGV[1]
local has_list = redis.call('EXISTS', 'rq:queue:' .. queue) == 1
local found = call('HSCAN', KEYS[1], ARGV[2], 'COUNT', 100)

for i = 1, #found[2], 2 do
  local group, head = found[2][i], found[2][i + 1]
  if head == '' or not has_list or redis.pcall('HGET', 'rq:job:' .. head, 'status') ~= 'queued' then
    repair(queue, group, head)
  end
end

write_events()
return {found[1], #found[2] / 2}
