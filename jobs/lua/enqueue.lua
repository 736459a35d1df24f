-- Store new jobs, and put each in its queue or among the scheduled ones.
--
-- KEYS[1]  the set of queues
-- KEYS[2]  the places of unique jobs: a hash of key to "<job id> <Unix time until which it is held, or 0>"
-- ARGV[1]  msgpack: a list of jobs, each [id, call, queue, place, when, [field, value, ...], uniqueness, group, batch]
-- ARGV[2+] each job's payload, since this msgpack has no bytes
--          call names the call that enqueues a job of a chosen id; it is "" for a random id
--          place is "back" or "front" of the queue (then the last job comes first), "at" for Unix time `when`, "in" for
--          `when` seconds from now by the server's clock, or "held" if a batch enqueues the job when it ends
--          uniqueness is nothing, or for a unique job [key, rule, seconds, limit]:
--            "life"      kept out while the holder of the place is alive
--            "ttl"       kept out for `seconds` from the holder's enqueue, unless the holder failed
--            "throttle"  the same, even if the holder failed
--            "debounce"  while the holder has yet to be due, it is replaced and its wait starts again, up to `limit`
--                        seconds in all (0: no limit)
--          group is nothing, or the group in which the job waits (groups.lua)
--          batch is nothing, or the batch in which the job counts (batch.lua); all jobs of a call have the same
-- Returns  an error that begins with BATCH if the batch takes no more jobs, otherwise a list: 1 for an enqueued job, 0
--          for a job whose id was known, and the holder's id for a job that was kept out or replaced another
--
-- An id is known if its record exists, or if this same call's job, within the last minute, ended and left no record or
-- replaced another job. So a command that is sent again because its reply was lost enqueues nothing twice.

local jobs = cmsgpack.unpack(ARGV[1])
local replies, listed, taken = {}, {}, 0

local GONE_SECONDS = 60

-- The reply for a job that was enqueued before, or nothing.
local function known(id, call)
  if redis.call('EXISTS', 'rq:job:' .. id) == 1 then
    return 0
  end
  local gone = redis.call('GET', 'pm:gone:' .. id)
  return gone == call and 0 or gone and gone:match('^>(.+)')
end

-- The job that took a place, and the time until which it holds it in any case.
local function parse(entry)
  local id, till = (entry or ''):match('^(%S+) (%S+)$')
  return id, tonumber(till) or 0
end

-- The job that holds the place `key`; for a debounced job also its queue, and since when it has waited.
local function holder(key, rule)
  local id, till = parse(redis.call('HGET', KEYS[2], key))
  if not id then
    return
  end
  local record = 'rq:job:' .. id
  local found = redis.pcall('HMGET', record, 'unique', 'status', 'origin', 'enqueued_at', 'debounced_since')
  local owner, status, queue, enqueued, since = unpack(found)
  local is_there = not found.err and owner == key
  -- A record without data or a queue is set aside sooner or later, whatever its status.
  local is_alive = is_there and is_pending(status) and queue and redis.call('HEXISTS', record, 'data') == 1
  if rule == 'debounce' then
    if is_alive and status == 'scheduled' and not enqueued then
      return id, queue, tonumber(since) or now
    end
  elseif till == 0 then
    return is_alive and id
  elseif now < till then
    local has_failed = found.err or is_there and not is_alive and status ~= 'finished'
    return (rule == 'throttle' or not has_failed) and id
  end
end

-- The place comes before the record: a key of another type fails here, and a record without a place would count as
-- enqueued.
local function put(id, queue, place, due, group)
  local list = 'rq:queue:' .. queue
  if place == 'back' or place == 'front' then
    groups.join(queue, group, id, place == 'back' and 'RPUSH' or 'LPUSH')
  elseif place == 'held' then
    redis.call('ZADD', 'rq:deferred:' .. queue, '+inf', id)
  else
    redis.call('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', due), id)
    scheduled(queue, due)
  end
  if not listed[list] then
    redis.call('SADD', KEYS[1], list)
    listed[list] = true
  end
end

local function add(fields, name, value)
  if value then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

local batch, added = nil, {}

for i, job in ipairs(jobs) do
  local id, call, queue, place, when, fields, uniqueness, group = unpack(job, 1, 8)
  local key, rule, seconds, limit = unpack(uniqueness or {})
  local due = place == 'in' and now + when or when
  local reply, replaced, origin, since = known(id, call), nil, nil, nil
  if key and not reply then
    reply, origin, since = holder(key, rule)
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
    local target = replaced or id
    local record = 'rq:job:' .. target
    if group then limits.replace(queue, group, fields, now) end
    put(target, queue, place, due, group)
    if replaced then
      redis.call('DEL', record)
      if origin ~= queue then
        redis.call('ZREM', 'rq:scheduled:' .. origin, target)
      end
      redis.call('SET', 'pm:gone:' .. id, '>' .. target, 'EX', GONE_SECONDS)
    end
    add(fields, 'call', call ~= '' and call)
    add(fields, 'unique', key)
    add(fields, 'debounced_since', since and string.format('%.6f', since))
    redis.call('HSET', record, 'data', ARGV[i + 1], unpack(fields))
    if batch then added[#added + 1] = id end
    local is_waiting = place == 'back' or place == 'front'
    if place ~= 'held' then
      local details = due and not is_waiting and {due = due} or nil
      emit(is_waiting and 'enqueued' or 'scheduled', target, queue, nil, details)
    end
    if key then
      local till = (rule == 'ttl' or rule == 'throttle') and now + seconds or 0
      redis.call('HSET', KEYS[2], key, string.format('%s %.6f', target, till))
      taken = taken + 1
    end
  end
  replies[i] = reply or replaced or 1
end

-- Nothing reports here that a job has ended. So each place that is taken pays for a look at two others, which are given
-- up if their job has left no record: there are about twice as many places as records at most.
local some = taken > 0 and redis.call('HRANDFIELD', KEYS[2], 2 * taken, 'WITHVALUES') or {}
for i = 1, #some, 2 do
  local id, till = parse(some[i + 1])
  if not id or now >= till and redis.pcall('HGET', 'rq:job:' .. id, 'unique') ~= some[i] then
    redis.call('HDEL', KEYS[2], some[i])
  end
end

notify_scheduler()
if batch then batches.add(batch, added) end
write_events()
return replies
