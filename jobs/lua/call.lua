-- What other scripts are built on. Put behind events.lua in front of them; it has no KEYS[1] of its own and Returns nothing.

-- A table whose functions `fill` puts there when the first of them is wanted: most calls of a script that moves jobs
-- want none of them, and to make them all takes longer than to move a job.
local function lazy(fill)
  return setmetatable({}, {__index = function(functions, name)
    setmetatable(functions, nil)
    fill(functions)
    return functions[name]
  end})
end

local own = {} -- what a script knows to say in its notes: its `worker`, and the time `at` as RQ's text

local ALIVE = {queued = true, started = true, scheduled = true, deferred = true} -- statuses of jobs that have yet to end

local batches -- batch.lua, in scripts that count

-- Keep a note of a job or key that makes no sense.
local function set_aside(id, reason)
  redis.pcall('RPUSH', 'pm:quarantine', cjson.encode({job_id = id, reason = reason, worker = own.worker, at = own.at}))
  redis.pcall('LTRIM', 'pm:quarantine', -10000, -1)
  emit('quarantined', id, '', own.worker, {reason = reason})
  if batches then batches.ended(id, 'f') end
end

-- Call a command; where the key is of a type that it can't be, set that aside, and call it on an empty one: an error
-- in the midst of a script would lose the ids that it has in its hands.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if reply.err:find('WRONGTYPE', 1, true) then
    set_aside(key, reply.err)
    redis.call('RENAME', key, 'pm:broken:' .. key)
  end
  return redis.call(command, key, ...)
end

local soonest = {} -- of each queue, when the first of the jobs is due that this call schedules

local function scheduled(queue, due) soonest[queue] = math.min(due, soonest[queue] or due) end

-- The leading scheduler looks once a second, and hears of what is due before that, if it is the first of its queue
-- and this user may publish.
local function notify_scheduler()
  for queue, due in pairs(soonest) do
    local first = due < now + 1 and tonumber(call('ZRANGE', 'rq:scheduled:' .. queue, 0, 0, 'WITHSCORES')[2])
    if first and first >= due - 0.000001 then
      redis.pcall('PUBLISH', 'pm:scheduler', string.format('%.3f', math.max(0, due - now)))
    end
  end
end
