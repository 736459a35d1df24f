-- Limits: the slots and tokens that a job needs in order to run.
-- requires: caller, coordination/limits/tokens, coordination/redis/clock, guarded, records, stated_limits
-- may use: groups, hosts, rates, weights
--
-- pm:holders:<key>   a hash of job to its worker and execution

local limits = {}

local call = guarded.call

local function has_room(limit)
  if limit.cost then return weights.free(limit[2], limit[3]) >= limit.cost end
  return call('HLEN', 'pm:holders:' .. limit[2]) < limit[3]
end

local function unblock_next(limit)
  if limit.cost then weights.unblock_next(limit.line) else groups.unblock_next(limit.line) end
end

-- Whether a job has a slot or enough are free. A slot is free if its holder no longer claims its job. `own` is how the
-- holders of this claim begin, and `group` the job's name among blocked groups if it asks for its turn.
function limits.has_slot(limit, id, own, group)
  local key = 'pm:holders:' .. limit[2]
  local may = not limit.cost or not group or weights.is_turn(limit.line, group)
  if may and has_room(limit) or call('HEXISTS', key, id) == 1 then return true end
  local held, holder = unpack(may and call('HRANDFIELD', key, 1, 'WITHVALUES') or {})
  if not held then return false end
  local worker, execution = holder:match('^(.*) ([^ ]*)$')
  local is_alive = worker and redis.pcall('HGET', 'pm:claims:' .. worker, held) == execution
  if is_alive or holder:sub(1, #own) == own then return false end
  call('HDEL', key, held)
  if limit.cost then weights.drop(limit[2], held) end
  return has_room(limit)
end

-- A job that may not run leaves its other slots to groups that are blocked until one is free.
local function pass_on(all, refusing, id, own, group)
  for _, limit in ipairs(all) do
    if limit ~= refusing and limit[1] ~= 'rate' then
      if limit.cost then weights.leave(limit.line, group) end
      if limits.has_slot(limit, id, own) then unblock_next(limit) end
    end
  end
end

-- A job takes the slots of a limit.
local function hold(limit, id, holder, group)
  local key, most = limit[2], limit[3]
  call('HSET', 'pm:holders:' .. key, id, holder)
  if limit.cost then
    weights.take(key, id, limit.cost)
    if weights.place_of(group) ~= 'waiting' then weights.leave(limit.line, group) end -- else another of its jobs is blocked
    if limit.is_hosted then hosts.hold(limit, id, group) end
    if weights.free(key, most) > 0 then weights.unblock_next(limit.line) end
  end
end

-- Whether a job may run now: then it takes its slots and tokens. Otherwise the limit that refuses it, and when it may run.
local function admit(all, id, own, number, group)
  local full = {}
  for _, limit in ipairs(all) do
    local kind, key, most, capacity = unpack(limit)
    full[limit] = kind == 'rate' and rates.full_at(key, capacity)
    local wait = full[limit] and tokens.wait(full[limit], capacity, most, limit.cost) or 0
    if wait > 0 or kind ~= 'rate' and not limits.has_slot(limit, id, own, group) then
      pass_on(all, limit, id, own, group)
      return false, limit, clock.now + math.min(wait / 1000000, groups.LONGEST_BLOCK)
    end
  end
  for _, limit in ipairs(all) do
    if full[limit] then tokens.take(rates.key(limit[2]), full[limit], limit[3], limit.cost) end
    if not full[limit] then hold(limit, id, own .. number, group) end
  end
  return true
end

-- Claim a job from its queue's list. Whether it may run, or else is blocked, and whether another job followed it.
function limits.claim(queue, group, text, id, own, number)
  if text then
    local all, name = stated_limits.parse(text, caller.host), queue .. '\n' .. group
    local is_admitted, refusing, due = admit(all, id, own, number, name)
    if not is_admitted then
      groups.block(queue, group, id, refusing[1] ~= 'rate' and refusing.line, due)
      if refusing.is_hosted then hosts.invite(refusing, name) end
      return false, false
    end
  end
  return true, groups.leave(queue, group, id)
end

-- Release a job's slots, and its tokens too if `returned`, its execution, was not performed. If it is only postponed
-- until its lock is free, no group is unblocked: the next job would find the same lock taken.
function limits.release(text, id, returned, is_postponed)
  local is_hosted = text:find('"host"', 1, true)
  for _, limit in ipairs(stated_limits.parse(text, is_hosted and records.get(id, 'slots_host') or caller.host)) do
    local kind, key, interval = limit[1], limit[2], limit[3]
    if kind ~= 'rate' then
      if limit[4] == 'replace' then call('SREM', 'pm:retrying:' .. key, id) end
      if call('HDEL', 'pm:holders:' .. key, id) == 1 then
        if limit.cost then weights.drop(key, id) end
        if not is_postponed then unblock_next(limit) end
      end
    elseif returned and not (limit[5] and rates.was_spent(id, returned)) then
      rates.give_back(key, interval * limit.cost)
    end
  end
end

return limits
