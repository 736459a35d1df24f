-- Enqueueing: store new jobs, and put each in its queue or among the scheduled ones. enqueue.lua describes a job.
-- requires: batches, canceling, coordination/redis/clock, events, groups, guarded, quarantine, queues, records, scheduled
-- requires: singletons, uniqueness

local enqueueing = {}

local GONE_SECONDS = 60
local now = clock.now
local listed = {} -- the queues that this call has registered

-- The reply for a job that was enqueued before, or nothing. A canceled job keeps out only the call that enqueued it.
local function known(id, call)
  if records.exists(id) then
    local is_free = call ~= '' and records.get(id, 'status') == 'canceled' and records.get(id, 'call') ~= call
    return not is_free and 0, is_free
  end
  local gone = redis.call('GET', 'pm:gone:' .. id)
  return gone == call and 0 or gone and gone:match('^>(.+)')
end

-- The place comes before the record: a record without a place would count as enqueued.
local function put(id, queue, place, due, group)
  if place == 'back' or place == 'front' then
    groups.join(queue, group, id, place == 'back' and 'RPUSH' or 'LPUSH')
  elseif place == 'held' then
    guarded.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  else
    guarded.call('ZADD', scheduled.key(queue), string.format('%.6f', due), id)
    scheduled.due(queue, due)
  end
  if not listed[queue] then
    queues.register(queue)
    listed[queue] = true
  end
end

local function add(fields, name, value)
  if value then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

local function limits_in(fields)
  for i = 1, #fields, 2 do
    if fields[i] == 'limits' then return fields[i + 1] end
  end
end

-- Store a job that nothing keeps out; if it replaces another one, under that one's id. The ids of waiting singletons
-- that it replaces.
local function store(job, payload, due, replaced, origin, since)
  local id, call, queue, place, _, fields, uniqueness_of, group, _, expires = unpack(job, 1, 10)
  local key = uniqueness_of and uniqueness_of[1]
  local target = replaced or id
  local record = records.key(target)
  local is_waiting = place == 'back' or place == 'front'
  local canceled = group and is_waiting and singletons.replace(queue, group, limits_in(fields)) or {}
  put(target, queue, place, due, group)
  if replaced then
    redis.call('DEL', record)
    if origin ~= queue then
      redis.call('ZREM', scheduled.key(origin), target)
    end
    redis.call('SET', 'pm:gone:' .. id, '>' .. target, 'EX', GONE_SECONDS)
  end
  add(fields, 'call', call ~= '' and call)
  add(fields, 'unique', key)
  add(fields, 'debounced_since', since and string.format('%.6f', since))
  if expires then -- by this server's clock; one that is called back has its time from then on
    add(fields, place == 'held' and 'expires' or 'expires_at', string.format('%.6f', (due or 0) + expires))
  end
  redis.call('HSET', record, 'data', payload, unpack(fields))
  if place ~= 'held' then
    events.emit(is_waiting and 'enqueued' or 'scheduled', target, queue, nil, not is_waiting and {due = due} or nil)
  end
  return canceled
end

-- Enqueue all jobs of `packed`; the payload of the first is `payloads[2]`. The reply is enqueue.lua's.
function enqueueing.all(places, packed, payloads)
  local replies, added, canceled, batch, has_taken = {}, {}, {}, nil, false
  local jobs = cmsgpack.unpack(packed)
  if jobs[1] then quarantine.called(jobs[1][6][2]) end -- the first field is created_at
  for i, job in ipairs(jobs) do
    local place, when = job[4], job[5]
    local key, rule, seconds, limit = unpack(job[7] or {})
    local due = place == 'in' and now + when or place == 'at' and when or place ~= 'held' and now or 0
    local reply, is_free = known(job[1], job[2])
    local replaced, origin, since
    if key and not reply then
      reply, origin, since = uniqueness.holder(places, key, rule)
      if rule == 'debounce' then
        replaced, reply = reply, nil
        since = since or now
        due = limit > 0 and math.min(due, since + limit) or due
      end
    end
    -- The same id twice in one call finds its own record, so that it is pushed once.
    if not reply then
      if job[9] and not batch then -- all jobs before this one were known: nothing has changed yet
        local why = batches.refusal(job[9])
        if why then return redis.error_reply('BATCH ' .. why) end
        batch = job[9]
      end
      if is_free then canceling.forget(job[1]) end
      for _, id in ipairs(store(job, payloads[i + 1], due, replaced, origin, since)) do canceled[#canceled + 1] = id end
      if batch then added[#added + 1] = job[1] end
      if key then
        uniqueness.take(places, key, replaced or job[1], rule, seconds)
        has_taken = true
      end
    end
    replies[i] = reply or replaced or 1
  end
  if has_taken then uniqueness.give_up_others(places) end
  scheduled.notify()
  if batch then batches.add(batch, added) end
  for _, id in ipairs(canceled) do batches.ended(id, 'c') end -- they may be of this call
  events.write()
  return replies
end

return enqueueing
