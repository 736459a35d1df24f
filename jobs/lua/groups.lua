-- Groups: jobs that share a turn or a limit wait for each other outside of their queue's list. Put in front of the
-- scripts that move jobs; it has no KEYS[1] of its own and Returns nothing.
--
-- Of a group with several jobs one stands in the queue's list, its ticket; when that is claimed, the next takes a
-- place at the list's end, so that all groups have turns. A group whose first job may not run yet has no ticket:
-- it is parked until a slot is released or its time has come. A ticket too many or one lost is no harm: limits are
-- checked at the claim, and the scheduler hands a group without a ticket a new one.
--
-- pm:groups:<queue>  a hash of group to ticket, "" while it is parked    pm:group:<queue>:<group>  the others, in order
-- pm:holders:<key>   a hash of job to its worker and execution           pm:blocked:<key>  groups parked for a slot
-- pm:due             parked groups by the time at which they may go on   pm:rate:jobs:<key>  a token bucket

local groups = {}

local function members_of(queue, group) return 'pm:group:' .. queue .. ':' .. group end

-- The next of a group takes its turn.
local function hand_ticket(queue, group, push)
  local id = redis.call('LPOP', members_of(queue, group))
  if id then
    redis.call('HSET', 'pm:groups:' .. queue, group, id)
    redis.call(push, 'rq:queue:' .. queue, id)
  else
    redis.call('HDEL', 'pm:groups:' .. queue, group)
  end
end

-- A job comes to wait: in its queue's list, or behind others of its group.
function groups.join(queue, group, id, push)
  local is_first = not group or redis.call('HSETNX', 'pm:groups:' .. queue, group, id) == 1
  redis.call(push, is_first and 'rq:queue:' .. queue or members_of(queue, group), id)
end

-- A job leaves its queue's list, to run or for good. Whether another takes its place.
function groups.leave(queue, group, id)
  local held = redis.call('HGET', 'pm:groups:' .. queue, group) == id
  if held then hand_ticket(queue, group, 'RPUSH') end
  return held
end

-- A job may not run yet: before the slot `key` is free, or before the time `due`.
function groups.park(queue, group, id, key, due)
  redis.call('LPUSH', members_of(queue, group), id)
  local ticket = redis.call('HGET', 'pm:groups:' .. queue, group)
  if not ticket or ticket == '' or ticket == id then
    redis.call('HSET', 'pm:groups:' .. queue, group, '')
    local name = queue .. '\n' .. group
    if key then
      redis.call('SADD', 'pm:blocked:' .. key, name)
    else
      redis.call('ZADD', 'pm:due', string.format('%.6f', due), name)
    end
  end
end

-- A parked group goes on, before others, for its turn had come.
function groups.wake(name)
  local queue, group = name:match('^([^\n]*)\n(.*)$')
  if queue and redis.call('HGET', 'pm:groups:' .. queue, group) == '' then
    hand_ticket(queue, group, 'LPUSH')
  end
end

-- A job waits no longer, behind others of its group or in the list. How many places behind others it had.
function groups.drop(queue, group, id)
  groups.leave(queue, group, id)
  return redis.call('LREM', members_of(queue, group), 1, id)
end

-- A new job of a singleton that replaces: those that wait are canceled, and the one that runs is told to stop.
function groups.replace(queue, group, fields, now)
  for i = 1, #fields, 2 do
    local gate = fields[i] == 'gates' and groups.gates(fields[i + 1])[1] or {}
    if gate[4] == 'replace' then
      local waiting = redis.call('LRANGE', members_of(queue, group), 0, -1)
      waiting[#waiting + 1] = redis.call('HGET', 'pm:groups:' .. queue, group) or nil
      redis.call('DEL', members_of(queue, group))
      for _, id in ipairs(waiting) do
        if redis.pcall('HGET', 'rq:job:' .. id, 'status') == 'queued' then
          redis.call('LREM', 'rq:queue:' .. queue, 1, id)
          redis.call('HSET', 'rq:job:' .. id, 'status', 'canceled')
          redis.call('ZADD', 'rq:canceled:' .. queue, math.floor(now), id)
        end
      end
      redis.call('HDEL', 'pm:groups:' .. queue, group)
      redis.call('SREM', 'pm:blocked:' .. gate[2], queue .. '\n' .. group)
      local running, holder = unpack(redis.call('HGETALL', 'pm:holders:' .. gate[2]))
      if running then
        local order = cjson.encode({command = 'stop-job', job_id = running})
        redis.call('PUBLISH', 'rq:pubsub:' .. holder:match('^(.*) '), order)
      end
    end
  end
end

-- Groups whose time has come go on.
function groups.wake_due(now)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', 'pm:due', '-inf', now, 'LIMIT', 0, 64)) do
    redis.call('ZREM', 'pm:due', name)
    groups.wake(name)
  end
end

-- Seconds until the next goes on, as text, for the worker to look then; "" if there is none, or another looks.
function groups.next_due(now, worker)
  local first = redis.call('ZRANGE', 'pm:due', 0, 0, 'WITHSCORES')[2]
  if not first then return '' end
  local due, looker = (redis.call('GET', 'pm:looker') or ''):match('^(%S+) (.*)$')
  if due and looker ~= worker and tonumber(due) <= first + 0.002 then return '' end
  redis.call('SET', 'pm:looker', first .. ' ' .. worker, 'PX', math.max(1, math.ceil((first - now) * 1000)))
  return string.format('%.6f', first - now)
end

-- What a job says of its limits: a list of {"lock" or "slots", key, most} and {"rate", key, interval, capacity}.
function groups.gates(text)
  local is_json, gates = pcall(cjson.decode, text or '[]')
  return is_json and type(gates) == 'table' and gates or {}
end

-- A slot whose holder no longer claims its job is free. `own` is how the holders of this very claim begin.
local function drop_stale(holders, own)
  local id, holder = unpack(redis.call('HRANDFIELD', holders, 1, 'WITHVALUES'))
  local worker, execution = holder:match('^(.*) ([^ ]*)$')
  if holder:sub(1, #own) == own or (worker and redis.pcall('HGET', 'pm:claims:' .. worker, id) == execution) then
    return false
  end
  return redis.call('HDEL', holders, id) == 1
end

local function full_at(key, now, capacity)
  return math.min(math.max(tonumber(redis.call('GET', 'pm:rate:jobs:' .. key)) or 0, now), now + capacity)
end

-- Whether a job may run now, and then it takes its slots and tokens; else the slot that it lacks, or its time.
-- `now` is in whole microseconds, in which the buckets count too.
function groups.admit(gates, id, own, number, now)
  for _, gate in ipairs(gates) do
    local kind, key, most, capacity = unpack(gate)
    local holders = 'pm:holders:' .. key
    if kind == 'rate' then
      local wait = full_at(key, now, capacity) + most - capacity - now
      if wait > 0 then return false, nil, (now + wait) / 1000000 end
    elseif redis.call('HEXISTS', holders, id) == 0 and redis.call('HLEN', holders) >= most and not drop_stale(holders, own) then
      return false, key
    end
  end
  for _, gate in ipairs(gates) do
    local kind, key, interval, capacity = unpack(gate)
    if kind == 'rate' then
      local after = full_at(key, now, capacity) + interval
      redis.call('SET', 'pm:rate:jobs:' .. key, after, 'PX', math.ceil((after - now) / 1000))
    else
      redis.call('HSET', 'pm:holders:' .. key, id, own .. number)
    end
  end
  return true
end

-- A job from its queue's list is claimed. Whether it may run, whether another has followed, whether it is parked.
function groups.claim(queue, group, text, id, own, number, now)
  -- RQ's code knows of no places but the queue's list to take a canceled job from.
  local is_canceled = redis.call('HGET', 'rq:job:' .. id, 'status') == 'canceled'
  if text and not is_canceled then
    local is_admitted, key, due = groups.admit(groups.gates(text), id, own, number, now)
    if not is_admitted then
      groups.park(queue, group, id, key, due)
      return false, false, true
    end
  end
  return not is_canceled, groups.leave(queue, group, id), false
end

-- A job gives its slots back; one that was returned unperformed its tokens too.
function groups.release(text, id, is_returned)
  for _, gate in ipairs(groups.gates(text)) do
    local kind, key, interval = gate[1], gate[2], gate[3]
    if kind ~= 'rate' then
      if redis.pcall('HDEL', 'pm:holders:' .. key, id) == 1 then
        local blocked = redis.pcall('SPOP', 'pm:blocked:' .. key)
        if type(blocked) == 'string' then groups.wake(blocked) end
      end
    elseif is_returned then
      local full_at = tonumber(redis.pcall('GET', 'pm:rate:jobs:' .. key))
      if full_at then redis.call('SET', 'pm:rate:jobs:' .. key, full_at - interval, 'KEEPTTL') end
    end
  end
end

