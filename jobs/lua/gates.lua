-- Gates: what a job's record says of its limits, and whether they let it run. Put behind groups.lua; it has no KEYS[1]
-- of its own and Returns nothing.
--
-- pm:holders:<key>   a hash of job to its worker and execution    pm:rate:jobs:<key>  a token bucket: when it is full
-- pm:blocked:<key>   groups parked for a slot, in order             again, in microseconds of Unix time

local IS_KIND = {lock = true, slots = true, rate = true}
local function is_number(value) return type(value) == 'number' and value >= 1 and value < 1e17 end

-- What a job says of its limits: a list of {"lock" or "slots", key, most} and {"rate", key, interval, capacity}. What
-- makes no sense is left out, for the worker will fail the job for it.
function groups.gates(text)
  local is_json, found = pcall(cjson.decode, text or '[]')
  local gates = {}
  for _, gate in ipairs(is_json and type(found) == 'table' and found or {}) do
    if type(gate) == 'table' and IS_KIND[gate[1]] and type(gate[2]) == 'string' and is_number(gate[3])
      and (gate[1] ~= 'rate' or is_number(gate[4])) then
      gates[#gates + 1] = gate
    end
  end
  return gates
end

-- Whether a job finds a slot, its own or a free one. One whose holder no longer claims its job is free; `own` is how
-- the holders of this very claim begin.
local function has_slot(gate, id, own)
  local key, most = 'pm:holders:' .. gate[2], gate[3]
  if call('HLEN', key) < most or call('HEXISTS', key, id) == 1 then return true end
  local held, holder = unpack(call('HRANDFIELD', key, 1, 'WITHVALUES'))
  local worker, execution = holder:match('^(.*) ([^ ]*)$')
  if holder:sub(1, #own) == own or (worker and redis.pcall('HGET', 'pm:claims:' .. worker, held) == execution) then
    return false
  end
  return call('HDEL', key, held) == 1 and call('HLEN', key) < most
end

local function full_at(key, now, capacity)
  local at = tonumber(call('GET', 'pm:rate:jobs:' .. key)) or 0
  if at > now + capacity then -- of a slower rate that was, or garbage: written down, or it would never be over
    at = now + capacity
    call('SET', 'pm:rate:jobs:' .. key, string.format('%.0f', at), 'PX', math.ceil(capacity / 1000))
  end
  return math.max(now, at == at and at or 0)
end

-- Where a job may not run, the slots that it leaves free are for others that wait for them.
local function pass_on(gates, refusing, id, own)
  for _, gate in ipairs(gates) do
    if gate ~= refusing and gate[1] ~= 'rate' and has_slot(gate, id, own) then wake_blocked(gate[2]) end
  end
end

-- Whether a job may run now, and then it takes its slots and tokens; else the slot that it lacks, or its time.
-- `now` is in whole microseconds, in which the buckets count too.
function groups.admit(gates, id, own, number, now)
  local full = {}
  for _, gate in ipairs(gates) do
    local kind, key, most, capacity = unpack(gate)
    full[gate] = kind == 'rate' and full_at(key, now, capacity)
    local wait = full[gate] and full[gate] + most - capacity - now or 0
    if wait > 0 or kind ~= 'rate' and not has_slot(gate, id, own) then
      pass_on(gates, gate, id, own)
      return false, kind ~= 'rate' and key, now / 1000000 + math.min(wait / 1000000, LONGEST_PARK)
    end
  end
  for _, gate in ipairs(gates) do
    local kind, key, interval = unpack(gate)
    if kind == 'rate' then
      local after = full[gate] + interval
      call('SET', 'pm:rate:jobs:' .. key, string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
    else
      call('HSET', 'pm:holders:' .. key, id, own .. number)
    end
  end
  return true
end

-- A job gives its slots back; one that was returned unperformed its tokens too. While it only waits for its lock the
-- slot is nobody's, for the next would find the same lock taken.
function groups.release(text, id, is_returned, is_postponed)
  for _, gate in ipairs(groups.gates(text)) do
    local kind, key, interval = gate[1], gate[2], gate[3]
    if kind ~= 'rate' then
      if call('HDEL', 'pm:holders:' .. key, id) == 1 and not is_postponed then wake_blocked(key) end
    elseif is_returned then
      local at = tonumber(call('GET', 'pm:rate:jobs:' .. key))
      if at then call('SET', 'pm:rate:jobs:' .. key, string.format('%.0f', at - interval), 'KEEPTTL') end
    end
  end
end

-- Look again at a group: one that is parked though nothing keeps it, and one whose ticket was lost, go on.
function groups.mend(queue, group, ticket, now)
  local key, name = members_of(queue, group), queue .. '\n' .. group
  for _ = 1, 1000 do
    local first = call('LINDEX', key, 0)
    if not first or redis.call('EXISTS', 'rq:job:' .. first) == 1 then break end
    call('LPOP', key)
  end
  if ticket ~= '' then return groups.leave(queue, group, ticket) end
  local due = tonumber(call('ZSCORE', 'pm:due', name))
  if due and due <= now + LONGEST_PARK then return end
  local first = call('LINDEX', key, 0)
  local gates = first and redis.pcall('HGET', 'rq:job:' .. first, 'gates')
  for _, gate in ipairs(not due and groups.gates(type(gates) == 'string' and gates) or {}) do
    if gate[1] ~= 'rate' and not has_slot(gate, first, '\n') then
      return call('ZADD', 'pm:blocked:' .. gate[2], 'NX', 0, name)
    end
  end
  call('ZREM', 'pm:due', name)
  groups.wake(name)
end
