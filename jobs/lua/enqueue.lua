-- Store new jobs and put each in its queue, or among the scheduled. All of it, or nothing.
--
-- KEYS[1]  the set of queues
-- ARGV[1]  msgpack: a list of jobs, each [id, queue, place, when, [field, value, ...]]
-- ARGV[2+] each job's payload, for this msgpack has no bytes
--          place is "back" or "front" of the queue, or "at" or "in": scheduled for Unix time
--          `when`, or for `when` seconds from now by the server's clock
-- Returns  a list: 1 for each job that was enqueued, 0 for one whose id was known already
--
-- Known means that its record exists, or that it ended within the last minute and left none: so a
-- command that is sent again because its reply was lost enqueues nothing twice.

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

local jobs = cmsgpack.unpack(ARGV[1])
local replies = {}
local backs, fronts = {}, {}

local function append(lists, queue, id)
  local list = lists[queue]
  if list then
    list[#list + 1] = id
  else
    lists[queue] = {id}
  end
end

for i, job in ipairs(jobs) do
  local id, queue, place, when, fields = unpack(job)
  local record = 'rq:job:' .. id
  -- The same id twice in one call finds its own record, so that it is pushed once.
  if redis.call('EXISTS', record, 'pm:gone:' .. id) > 0 then
    replies[i] = 0
  else
    redis.call('HSET', record, 'data', ARGV[i + 1], unpack(fields))
    if place == 'back' then
      append(backs, queue, id)
    elseif place == 'front' then
      append(fronts, queue, id)
    else
      if place == 'in' then
        when = now + when
      end
      redis.call('SADD', KEYS[1], 'rq:queue:' .. queue)
      redis.call('ZADD', 'rq:scheduled:' .. queue, string.format('%.6f', when), id)
    end
    replies[i] = 1
  end
end

for queue, ids in pairs(backs) do
  redis.call('SADD', KEYS[1], 'rq:queue:' .. queue)
  redis.call('RPUSH', 'rq:queue:' .. queue, unpack(ids))
end

for queue, ids in pairs(fronts) do
  redis.call('SADD', KEYS[1], 'rq:queue:' .. queue)
  for i = #ids, 1, -1 do
    redis.call('LPUSH', 'rq:queue:' .. queue, ids[i])
  end
end

return replies
