-- Singletons with the policy "replace": the one that was queued last runs, those before it are canceled or stopped.
-- requires: guarded, queues, records
-- may use: ending, groups, stated_limits, withdrawal
--
-- pm:retrying:<key>  a set of the jobs of a lock that went back or that a paused batch holds, and have yet to run

local singletons = {}

local call = guarded.call
local MOST = 500 -- jobs that one replaces; more can wait only if the policy was another before
local DAY = 86400

local function lock_of(text)
  local lock = text and text:find('"replace"', 1, true) and stated_limits.parse(text)[1]
  return lock and lock[4] == 'replace' and lock[2]
end

-- Cancel those that wait in the group: its members and its head.
local function cancel_waiting(queue, group)
  local members = groups.members_of(queue, group)
  local waiting = call('LRANGE', members, 0, MOST - 1)
  call('LTRIM', members, MOST, -1)
  local head = call('HGET', 'pm:groups:' .. queue, group)
  if head and head ~= '' then
    queues.remove(queue, head)
    waiting[#waiting + 1] = head
  end
  call('HDEL', 'pm:groups:' .. queue, group)
  for _, id in ipairs(waiting) do
    if records.get(id, 'status') == 'queued' then ending.cancel(id, queue, 'replaced') end
  end
end

-- Cancel those that went back and wait for their next attempt, or for their batch to be resumed.
local function cancel_retrying(key)
  for _, id in ipairs(call('SPOP', 'pm:retrying:' .. key, MOST)) do
    local status, queue, group, batch = unpack(records.read(id, 'status', 'origin', 'group', 'batch'))
    local waits = queue and (status == 'queued' or status == 'scheduled' or status == 'deferred')
    if waits and withdrawal.remove(id, status, queue, group, batch) > 0 then ending.cancel(id, queue, 'replaced') end
  end
end

-- Stop the one that runs; if it fails or its worker dies before it hears of that, it does not run again.
local function stop_running(key)
  local id, holder = unpack(call('HRANDFIELD', 'pm:holders:' .. key, 1, 'WITHVALUES'))
  local worker = id and holder:match('^(.*) ')
  if worker then
    if records.get(id, 'status') then redis.call('HSET', records.key(id), 'replaced', '1') end
    call('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = id}))
  end
end

-- A job with the limits `text` is about to join its queue, and replaces others.
function singletons.replace(queue, group, text)
  local key = group and lock_of(text)
  if key then
    cancel_waiting(queue, group)
    cancel_retrying(key)
    call('ZREM', 'pm:blocked:' .. key, queue .. '\n' .. group)
    stop_running(key)
  end
end

-- The job that a singleton would have to replace: one that waits, sleeps or runs, but not `id` itself; or nothing.
function singletons.other(queue, group, text, id)
  local key = group and lock_of(text)
  if not key then return end
  local head = call('HGET', 'pm:groups:' .. queue, group)
  local first = call('LINDEX', groups.members_of(queue, group), 0)
  local others = {head, first, call('HRANDFIELD', 'pm:holders:' .. key)}
  for _, other in pairs(others) do
    if other and other ~= '' and other ~= id then return other end
  end
  for _, other in ipairs(call('SRANDMEMBER', 'pm:retrying:' .. key, MOST)) do
    if other ~= id and records.is_pending(records.get(other, 'status')) then return other end
  end
end

-- Whether a job was replaced while it ran.
function singletons.was_replaced(id, text) return lock_of(text) and records.get(id, 'replaced') ~= nil end

-- A job goes back, and can run after `delay` seconds unless another replaces it before.
function singletons.goes_back(id, text, delay)
  local key = lock_of(text)
  if key then
    call('SADD', 'pm:retrying:' .. key, id)
    call('EXPIRE', 'pm:retrying:' .. key, math.ceil(delay) + 7 * DAY)
  end
end

return singletons
