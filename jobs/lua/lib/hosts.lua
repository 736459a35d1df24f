-- Hosts: limits of which each machine has slots of its own. Groups wait for them in one line, whichever host has room.
-- requires: caller, coordination/redis/clock, groups, guarded, records, stated_limits, weights
--
-- pm:hosted      a set of the keys of such limits that were met in the last minute; no claim is plain while it exists
-- pm:host-idle  a sorted set of "<host>\n<worker>" by the time at which the worker found nothing to do

local hosts = {}

local call = guarded.call
local KEPT, IDLE = 60, 15 -- seconds: an idle worker claims every 4
local MOST_LINES, MOST_WORKERS = 16, 64
local WAKE_UP, WORKER_KEY = cjson.encode({command = 'wake-up'}), 'rq:worker:'

local function wake(worker) return redis.call('PUBLISH', 'rq:pubsub:' .. worker, WAKE_UP) > 0 end

local function parts_of(name) return name:match('^([^\n]*)\n(.*)$') end

-- A group waits, or its job begins here. Workers that were idle before that enter themselves when they claim next.
local function meet(line, name)
  local is_new = call('SADD', 'pm:hosted', line) == 1
  call('EXPIRE', 'pm:hosted', KEPT)
  if not is_new then return end
  for _, key in ipairs(call('SRANDMEMBER', 'rq:workers:' .. parts_of(name), MOST_WORKERS)) do
    wake(key:sub(#WORKER_KEY + 1))
  end
end

-- A job takes slots of this host, which must be known when it releases them.
function hosts.hold(limit, id, name)
  meet(limit.line, name)
  redis.call('HSET', records.key(id), 'slots_host', caller.host)
end

-- A group waits for whichever host has room first.
function hosts.wait(line, name)
  meet(line, name)
  call('ZADD', 'pm:blocked:' .. line, 'NX', 0, name)
  weights.unblock_next(line)
end

-- Whether the first job of a group fits on this host, or shows by a look what it needs.
local function fits(queue, group, line)
  local id = call('LINDEX', groups.members_of(queue, group), 0)
  for _, limit in ipairs(stated_limits.parse(id and records.get(id, 'limits') or '', caller.host)) do
    if limit.is_hosted and limit.line == line then return weights.free(limit[2], limit[3]) >= limit.cost end
  end
  return true
end

-- Unblock the first group of each line if it's of one of `names`, queues that this call serves, and fits here.
function hosts.offer(names, is_paused)
  local is_open = {}
  for _, queue in ipairs(names) do is_open[queue] = not is_paused[queue] end
  for _, line in ipairs(call('SRANDMEMBER', 'pm:hosted', MOST_LINES)) do
    local name = call('ZRANGE', 'pm:blocked:' .. line, 0, 0)[1]
    if name then
      call('EXPIRE', 'pm:hosted', KEPT)
      local queue, group = parts_of(name)
      local place = weights.place_of(name)
      local is_offered = not place or place == 'waiting' and is_open[queue] and fits(queue, group, line)
      if is_offered then weights.unblock_next(line) end
    end
  end
end

-- A group is blocked. If it's the first and has no room here, wake an idle worker of its queue where it has.
function hosts.invite(limit, name)
  meet(limit.line, name)
  local queue = parts_of(name)
  if call('ZRANGE', 'pm:blocked:' .. limit.line, 0, 0)[1] ~= name then return end
  local has_room = {[caller.host] = false}
  for _, member in ipairs(call('ZRANDMEMBER', 'pm:host-idle', MOST_WORKERS)) do
    local host, worker = parts_of(member)
    if host and has_room[host] == nil then
      has_room[host] = weights.free(stated_limits.of_host(limit.line, host), limit[3]) >= limit.cost
    end
    if host and has_room[host] and call('SISMEMBER', 'rq:workers:' .. queue, WORKER_KEY .. worker) == 1 then
      call('ZREM', 'pm:host-idle', member)
      if wake(worker) then return end
    end
  end
end

-- This call's worker has nothing to do, so that others may wake it; or it has, or may take nothing.
function hosts.note_idle(is_idle)
  local member = caller.host .. '\n' .. caller.worker
  if not is_idle then return call('ZREM', 'pm:host-idle', member) end
  call('ZADD', 'pm:host-idle', string.format('%.3f', clock.now), member)
  call('ZREMRANGEBYSCORE', 'pm:host-idle', '-inf', string.format('%.3f', clock.now - IDLE))
  call('EXPIRE', 'pm:host-idle', KEPT)
end

return hosts
