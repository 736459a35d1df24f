-- Give groups that lost their head a new one, and unblock those that nothing blocks any more.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded, jobs/queues, jobs/records, scheduler/fence
-- may use: jobs/groups, jobs/hosts, jobs/limits, jobs/stated_limits
--
-- KEYS[1]  the groups of one queue    ARGV[1]  the queue    ARGV[2]  a cursor, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  the next cursor, "" after the last, and how many groups were seen; "not leading" if another leads

local by_group = KEYS[1]
local queue, cursor, term = ARGV[1], ARGV[2], ARGV[3]

local call = guarded.call
if not fence.admits(term) then return 'not leading' end

local looks = 250 -- at jobs: a group may hold many that were deleted

-- Give a group a new head if it lost its own, or if nothing blocks it any more.
local function repair(queue, group, head)
  local key, name = groups.members_of(queue, group), queue .. '\n' .. group
  while looks > 0 do
    looks = looks - 1
    local first = call('LINDEX', key, 0)
    if not first or records.exists(first) then break end
    call('LPOP', key)
  end
  if looks <= 0 then return end -- the next call goes on with these groups
  if head ~= '' then return groups.leave(queue, group, head) end
  local due = tonumber(call('ZSCORE', 'pm:due', name))
  if due and due <= clock.now + groups.LONGEST_BLOCK then return end
  call('ZREM', 'pm:due', name)
  local first = call('LINDEX', key, 0)
  for _, limit in ipairs(stated_limits.parse(first and records.get(first, 'limits'))) do
    if limit.is_hosted then return hosts.wait(limit.line, name) end
    if limit[1] ~= 'rate' and not limits.has_slot(limit, first, '\n') then
      return call('ZADD', 'pm:blocked:' .. limit[2], 'NX', 0, name)
    end
  end
  groups.unblock(name)
end

local has_list = redis.call('EXISTS', queues.key(queue)) == 1
local found = call('HSCAN', by_group, cursor, 'COUNT', 100)

for i = 1, #found[2], 2 do
  local group, head = found[2][i], found[2][i + 1]
  if not has_list or records.get(head, 'status') ~= 'queued' then -- a blocked group's head is ""
    repair(queue, group, head)
  end
end

local following = found[1] == '0' and '' or found[1]
events.write()
return {looks > 0 and following or cursor, #found[2] / 2}
