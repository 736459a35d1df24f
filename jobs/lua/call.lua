-- What other scripts are built on. It follows events.lua, in front of them; it has no KEYS[1] and Returns nothing.

-- A table that `fill` fills with functions when the first of them is used: most calls of a script that moves jobs
-- use none of them, and creating them all takes longer than moving a job.
local function lazy(fill)
  return setmetatable({}, {__index = function(functions, name)
    setmetatable(functions, nil)
    fill(functions)
    return functions[name]
  end})
end

local own = {} -- for notes in the quarantine: the script's `worker`, and the time `at` as RQ's text

-- Whether a job of this status has yet to end.
local function is_pending(status)
  return status == 'queued' or status == 'started' or status == 'scheduled' or status == 'deferred'
end

local batches -- batch.lua, in scripts that count

-- Note a corrupt job or key in the quarantine.
local function set_aside(id, reason)
  redis.pcall('RPUSH', 'pm:quarantine', cjson.encode({job_id = id, reason = reason, worker = own.worker, at = own.at}))
  redis.pcall('LTRIM', 'pm:quarantine', -10000, -1)
  emit('quarantined', id, '', own.worker, {reason = reason})
  if batches then batches.ended(id, 'f') end
end

-- Call a command. A key of an unexpected type is set aside, and the command is called on an empty one: an error
-- halfway through a script would lose the ids that it has taken.
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if reply.err:find('WRONGTYPE', 1, true) then
    set_aside(key, reply.err)
    redis.call('RENAME', key, 'pm:broken:' .. key)
  end
  return redis.call(command, key, ...)
end

local soonest = {} -- by queue, when the first job that this call schedules is due

local function scheduled(queue, due) soonest[queue] = math.min(due, soonest[queue] or due) end

-- The leading scheduler looks once a second. Notify it of a job that is due earlier, if that is the first of its queue
-- and this user may publish.
local function notify_scheduler()
  for queue, due in pairs(soonest) do
    local first = due < now + 1 and tonumber(call('ZRANGE', 'rq:scheduled:' .. queue, 0, 0, 'WITHSCORES')[2])
    if first and first >= due - 0.000001 then
      redis.pcall('PUBLISH', 'pm:scheduler', string.format('%.3f', math.max(0, due - now)))
    end
  end
end
