-- Groups: jobs that share a turn or a limit wait for each other outside their queue's list.
-- requires: guarded, queues
--
-- One job of a group, its head, is in the queue's list. When it is claimed, the next one becomes the head, at the
-- list's end, so that all groups take turns. A group whose first job may not run yet has no head: it is blocked until
-- a slot is released or its time comes. A head too many or too few does no harm: limits are checked at the claim, and
-- the scheduler gives a group that lost its head a new one.
--
-- pm:groups:<queue>  a hash of group to head, "" while it is blocked    pm:group:<queue>:<group>  the others, in order
-- pm:blocked:<key>   groups blocked for a slot, in order    pm:due  blocked groups by the time at which they may go on

local groups = {}

local call = guarded.call
groups.LONGEST_BLOCK = 3600 -- seconds, so that no wrong time blocks a group forever

function groups.members_of(queue, group) return 'pm:group:' .. queue .. ':' .. group end

-- Make the next job of a group its head. Its id, or nothing if none waits.
local function advance(queue, group, push)
  local id = call('LPOP', groups.members_of(queue, group))
  if id then
    call('HSET', 'pm:groups:' .. queue, group, id)
    queues.push(queue, id, push)
  else
    call('HDEL', 'pm:groups:' .. queue, group)
  end
  return id
end

-- Let a job wait: in its queue's list, or behind others of its group. A new job has no record yet and gives its priority.
function groups.join(queue, group, id, push, priority)
  local is_first = not group or call('HSETNX', 'pm:groups:' .. queue, group, id) == 1
  if is_first then return queues.push(queue, id, push, priority) end
  call(push, groups.members_of(queue, group), id)
end

-- A job leaves its queue's list, to run or for good. Whether it was its group's head, so that another follows.
function groups.leave(queue, group, id)
  local held = call('HGET', 'pm:groups:' .. queue, group) == id
  if held then advance(queue, group, 'RPUSH') end
  return held
end

-- Block a group whose job may not run yet: until a slot of `key` is free, or until the time `due`.
function groups.block(queue, group, id, key, due)
  call('LPUSH', groups.members_of(queue, group), id)
  local head = call('HGET', 'pm:groups:' .. queue, group)
  if not head or head == '' or head == id then
    call('HSET', 'pm:groups:' .. queue, group, '')
    local name = queue .. '\n' .. group
    if key then
      local last = call('ZRANGE', 'pm:blocked:' .. key, -1, -1, 'WITHSCORES')[2] or 0
      call('ZADD', 'pm:blocked:' .. key, 'NX', string.format('%.0f', last + 1), name)
    else
      call('ZADD', 'pm:due', string.format('%.6f', due), name)
    end
  end
end

-- Unblock a group, before others, since its turn had come. Whether it was blocked and has a job.
function groups.unblock(name)
  local queue, group = name:match('^([^\n]*)\n(.*)$')
  return queue and call('HGET', 'pm:groups:' .. queue, group) == '' and advance(queue, group, 'LPUSH')
end

-- Unblock the first group that still waits for a slot of `key`.
function groups.unblock_next(key)
  for _ = 1, 64 do
    local name = call('ZPOPMIN', 'pm:blocked:' .. key)[1]
    if not name or groups.unblock(name) then return end
  end
end

-- Remove a job, wherever it waits. How many places it had behind others of its group.
function groups.drop(queue, group, id)
  groups.leave(queue, group, id)
  return call('LREM', groups.members_of(queue, group), 1, id)
end

-- Unblock groups whose time has come.
function groups.unblock_due(now)
  for _, name in ipairs(call('ZRANGEBYSCORE', 'pm:due', '-inf', now, 'LIMIT', 0, 64)) do
    call('ZREM', 'pm:due', name)
    groups.unblock(name)
  end
end

-- Seconds, as text, until `soonest` or until the next group is due, if this worker is the one to look then; else "".
function groups.next_due(now, worker, soonest)
  local first = math.min(call('ZRANGE', 'pm:due', 0, 0, 'WITHSCORES')[2] or math.huge, soonest)
  if first == math.huge then return '' end
  local due, watcher = (call('GET', 'pm:due-watcher') or ''):match('^(%S+) (.*)$')
  due = tonumber(due) or 0
  if watcher ~= worker and due > now and due <= first + 0.002 then return '' end
  local span = math.min(first - now, groups.LONGEST_BLOCK)
  call('SET', 'pm:due-watcher', string.format('%.6f ', first) .. worker, 'PX', math.max(1, math.ceil(span * 1000)))
  return string.format('%.6f', span)
end

return groups
