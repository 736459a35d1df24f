-- Delete some of the jobs of a queue that wait in its list, behind others of their group, for their time or a signal.
-- requires: caller, events, guarded, queues, records
-- may use: bands, batches, ending, groups, withdrawal
--
-- KEYS[1]  the queue's list    KEYS[2]  its groups    KEYS[3]  its scheduled jobs    KEYS[4]  its deferred jobs
-- ARGV[1]  its name    ARGV[2]  where to look: "list", "groups", "scheduled" or "deferred"    ARGV[3]  a cursor, "" at first
-- ARGV[4]  at most how many    ARGV[5]  now as RQ's text
-- Returns  how many jobs were deleted, and the next cursor, "0" after the last

local list, by_group, later, deferred = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local queue, place, cursor, most, now_text = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]

local call = guarded.call
caller.at = now_text
local deleted = 0

local function delete(ids)
  for _, id in ipairs(ids) do
    if withdrawal.is_purged(id, queue) and ending.purge(id, queue) then deleted = deleted + 1 end
  end
  return #ids
end

-- The members of some groups. A group that was blocked is gone with its last one.
local function delete_members()
  local found, left = call('HSCAN', by_group, cursor == '' and '0' or cursor, 'COUNT', 100), most
  for i = 1, #found[2], 2 do
    local group, head = found[2][i], found[2][i + 1]
    left = left - delete(call('LPOP', groups.members_of(queue, group), left) or {})
    if left <= 0 then return cursor end -- there may be more of this group
    if head == '' then
      call('HDEL', by_group, group)
      call('ZREM', 'pm:due', queue .. '\n' .. group)
    end
  end
  return found[1]
end

-- Those that wait for a signal; others wait for other jobs.
local function delete_waiting()
  local found = call('ZSCAN', deferred, cursor == '' and '0' or cursor, 'COUNT', most)
  for i = 1, #found[2], 2 do
    local id = found[2][i]
    if records.get(id, 'waits') and call('ZREM', deferred, id) == 1 then delete({id}) end
  end
  return found[1]
end

local following = '1'
if place == 'groups' then
  following = delete_members()
elseif place == 'deferred' then
  following = delete_waiting()
elseif place == 'list' then
  following = '0'
  for _, each in ipairs(bands.all(list)) do
    if following == '0' and delete(queues.take(each, most)) > 0 then following = '1' end
  end
  if following == '0' then call('HDEL', 'pm:bands', list) end -- they are empty, so no claim need look at them
else
  local found, ids = call('ZPOPMIN', later, most), {}
  for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
  if delete(ids) == 0 then following = '0' end
end
batches.count_noted()
events.write()
return {deleted, following}
