-- Store new jobs and put each in its queue, or among the scheduled.
--
-- KEYS[1]  the set of queues
-- ARGV[1]  msgpack: a list of jobs, each [id, call, queue, place, when, [field, value, ...]]
-- ARGV[2+] each job's payload, for this msgpack has no bytes
--          call names the call that enqueues a job whose id was chosen, and is "" for an id that is one of a kind
--          place is "back" or "front" of the queue (the last one comes first then), or "at" or "in":
--          scheduled for Unix time `when`, or for `when` seconds from now by the server's clock
-- Returns  a list: 1 for each job that was enqueued, 0 for one whose id was known already
--
-- Known means that its record exists, or that this same call's job ended within the last minute and left
-- none: so a command that is sent again because its reply was lost enqueues nothing twice.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local jobs = cmsgpack.unpack(ARGV[1])
local replies, listed = {}, {}

local function is_known(id, call)
  return redis.call('EXISTS', 'rq:job:' .. id) == 1 or redis.call('GET', 'pm:gone:' .. id) == call
end

for i, job in ipairs(jobs) do
  local id, call, queue, place, when, fields = unpack(job)
  local record, list = 'rq:job:' .. id, 'rq:queue:' .. queue
  -- The same id twice in one call finds its own record, so that it is pushed once.
  if is_known(id, call) then
    replies[i] = 0
  else
    -- The place first: a key of another type fails here, and a record without a place would pass for enqueued.
    if place == 'back' then
      redis.call('RPUSH', list, id)
    elseif place == 'front' then
      redis.call('LPUSH', list, id)
    else
      local due = place == 'in' and now + when or when
      redis.call('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', due), id)
    end
    redis.call('HSET', record, 'data', ARGV[i + 1], unpack(fields))
    if call ~= '' then
      redis.call('HSET', record, 'call', call)
    end
    if not listed[list] then
      redis.call('SADD', KEYS[1], list)
      listed[list] = true
    end
    replies[i] = 1
  end
end

return replies
