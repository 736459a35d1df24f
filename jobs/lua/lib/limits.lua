-- Limits: the slots and tokens that a job needs in order to run.
-- requires: coordination/limits/tokens, coordination/redis/clock, guarded
-- may use: groups, rates
--
-- pm:holders:<key>   a hash of job to its worker and execution

local limits = {}

local call = guarded.call
local IS_KIND = {lock = true, slots = true, rate = true}
local function is_number(value) return type(value) == 'number' and value >= 1 and value < 1e17 end

-- The limits in a job's record: a list of {"lock" or "slots", key, most} and {"rate", key, interval, capacity}.
-- Corrupt ones are left out; the worker will fail the job because of them.
function limits.parse(text)
  local is_json, found = pcall(cjson.decode, text)
  local parsed = {}
  for _, limit in ipairs(is_json and type(found) == 'table' and found or {}) do
    if type(limit) == 'table' and IS_KIND[limit[1]] and type(limit[2]) == 'string' and is_number(limit[3])
      and (limit[1] ~= 'rate' or is_number(limit[4])) then
      parsed[#parsed + 1] = limit
    end
  end
  return parsed
end

-- Whether a job has a slot or a slot is free. A slot is free if its holder no longer claims its job. `own` is how the
-- holders of this claim begin.
function limits.has_slot(limit, id, own)
  local key, most = 'pm:holders:' .. limit[2], limit[3]
  if call('HLEN', key) < most or call('HEXISTS', key, id) == 1 then return true end
  local held, holder = unpack(call('HRANDFIELD', key, 1, 'WITHVALUES'))
  local worker, execution = holder:match('^(.*) ([^ ]*)$')
  if holder:sub(1, #own) == own or (worker and redis.pcall('HGET', 'pm:claims:' .. worker, held) == execution) then
    return false
  end
  call('HDEL', key, held)
  return call('HLEN', key) < most
end

-- A job that may not run leaves its other slots to groups that are blocked until one is free.
local function pass_on(all, refusing, id, own)
  for _, limit in ipairs(all) do
    if limit ~= refusing and limit[1] ~= 'rate' and limits.has_slot(limit, id, own) then groups.unblock_next(limit[2]) end
  end
end

-- Whether a job may run now: then it takes its slots and tokens. Otherwise the key of the slot that it lacks, or the
-- time at which it may run.
local function admit(all, id, own, number)
  local full = {}
  for _, limit in ipairs(all) do
    local kind, key, most, capacity = unpack(limit)
    full[limit] = kind == 'rate' and rates.full_at(key, capacity)
    local wait = full[limit] and tokens.wait(full[limit], capacity, most, 1) or 0
    if wait > 0 or kind ~= 'rate' and not limits.has_slot(limit, id, own) then
      pass_on(all, limit, id, own)
      return false, kind ~= 'rate' and key, clock.now + math.min(wait / 1000000, groups.LONGEST_BLOCK)
    end
  end
  for _, limit in ipairs(all) do
    local kind, key, interval = unpack(limit)
    if kind == 'rate' then
      tokens.take(rates.key(key), full[limit], interval, 1)
    else
      call('HSET', 'pm:holders:' .. key, id, own .. number)
    end
  end
  return true
end

-- Claim a job from its queue's list. Whether it may run, or else is blocked, and whether another job followed it.
function limits.claim(queue, group, text, id, own, number)
  if text then
    local is_admitted, key, due = admit(limits.parse(text), id, own, number)
    if not is_admitted then
      groups.block(queue, group, id, key, due)
      return false, false
    end
  end
  return true, groups.leave(queue, group, id)
end

-- Release a job's slots, and its tokens too if it was returned unperformed. If it is only postponed until its lock
-- is free, no group is unblocked: the next job would find the same lock taken.
function limits.release(text, id, is_returned, is_postponed)
  for _, limit in ipairs(limits.parse(text)) do
    local kind, key, interval = limit[1], limit[2], limit[3]
    if kind ~= 'rate' then
      if limit[4] == 'replace' then call('SREM', 'pm:retrying:' .. key, id) end
      if call('HDEL', 'pm:holders:' .. key, id) == 1 and not is_postponed then groups.unblock_next(key) end
    elseif is_returned then
      rates.give_back(key, interval)
    end
  end
end

return limits
