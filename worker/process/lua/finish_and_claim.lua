-- Acknowledge the outcomes of one claim and claim the next jobs, in one atomic step.
--
-- KEYS[1]  the worker's claims: a hash of job id to execution id
-- KEYS[2]  the worker's waiting list: ids that a blocking move brought here
-- KEYS[3]  the worker's RQ hash    KEYS[4]  the leases    KEYS[5]  the quarantine    KEYS[6]  rq:suspended
-- KEYS[7+] the queues' lists, in the order in which they are served
-- ARGV[1]  msgpack: [mark, claim id, jobs wanted, worker, now as RQ's text, lease in seconds or 0, [outcome, ...]]
--          the mark is the field of the claims that names the last claim, which may be sent again
--          an outcome is the array of worker/process/outcome.py's Outcome
-- ARGV[2]  the statistics of the outcomes (statistics.lua), or ""
-- Returns  [ids of stale outcomes, ids with dependents to enqueue, [job, ...], 1 while all workers are suspended,
--          names of paused queues, seconds until a blocked group goes on, as text, if this worker is to look then,
--          1 if RQ no longer knows the worker, asked when its lease is renewed]
--          a job is [id, execution id, origin, data, timeout, [each of WANTED but the last two, or nothing] or nothing, enqueued_at]
--
-- An outcome counts only while the claims name its execution: a worker that has lost its lease changes nothing.
-- If it is sent again with the same claim id, the script returns the same jobs and acknowledges nothing twice: a
-- lost reply loses and doubles nothing.

local WANTED = {'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals', 'attempts', 'enqueue_at_front_on_retry',
  'expires_at', 'checkpoint', 'group', 'limits', 'batch', 'trace',
  'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks', 'repeats_left', 'status', 'enqueued_at'}
local LAST_RARE = #WANTED + 1 -- three fields are read before these, and the last two are not rare

local looks = 4 * want + 64 -- how many jobs that may not run a call looks at
local has_followed, has_blocked = false, false
local is_paused, rooms, soonest, is_paused_batch = {}, {}, math.huge, {}

-- Add a job to the reply; whether it may run and its record is intact.
local function take(id, number)
  local execution = claim_id .. '-' .. number
  local values = redis.pcall('HMGET', 'rq:job:' .. id, 'origin', 'data', 'timeout', unpack(WANTED))
  if values.err then
    set_aside(id, values.err)
    return false
  elseif not values[2] then
    -- A record that expired or was deleted while its id waited is no loss, but half a record is.
    if redis.call('EXISTS', 'rq:job:' .. id) == 1 then set_aside(id, 'the record holds no data') end
    return false
  end
  local group, needs, batch = values[12] or values[13], values[13], values[14]
  if again then
    -- it was allowed to run before
  elseif is_paused_batch[batch] then
    if group then groups.leave(values[1] or '', group, id) end
    call('RPUSH', 'pm:batch:' .. batch .. ':held', id)
    return false
  elseif values[LAST_RARE + 1] == 'canceled' and not group then -- the cancel could not remove it from its list
    return false
  end
  if group and values[1] and not again then
    local holder = worker .. ' ' .. claim_id .. '-'
    local may_run, follows, is_blocked = limits.claim(values[1], group, needs, id, holder, number, now_us)
    has_followed, has_blocked = has_followed or follows, has_blocked or is_blocked
    if not may_run then return false end
  end
  local rare = false
  for i = 4, LAST_RARE do
    if values[i] then
      rare = {unpack(values, 4, LAST_RARE)}
      break
    end
  end
  local room = rooms[values[1]]
  if room then room.begun = room.begun + 1 end
  jobs[#jobs + 1] = {id, execution, values[1], values[2], values[3], rare, values[LAST_RARE + 2]}
  return true
end

local function claim(list)
  has_followed = false
  local room = rooms[list:sub(10)]
  local asked = math.min(want - #jobs, room and room.free - room.begun or want)
  local ids = asked > 0 and redis.pcall('LPOP', list, asked) or {}
  if ids.err then
    set_aside(list, ids.err)
    redis.call('RENAME', list, 'pm:broken:' .. list)
    return
  end
  for _, id in ipairs(ids) do
    looks = looks - 1
    local number = #jobs + 1
    if take(id, number) then
      gather('HSET', claims, id, claim_id .. '-' .. number) -- mark_started.lua marks those that run for a moment
    end
  end
  if #ids > 0 and (has_followed or #ids == asked) and looks > 0 then claim(list) end -- what is behind jobs that may not run
end

-- Return a job that a blocking move brought from a queue that is paused.
local function is_moved_back(id)
  local queue = redis.pcall('HGET', 'rq:job:' .. id, 'origin')
  if not is_paused[queue] then return false end
  redis.call('LREM', KEYS[2], 1, id)
  redis.call('LPUSH', 'rq:queue:' .. queue, id)
  return true
end

local is_forgotten = 0
if lease > 0 then
  call('ZADD', KEYS[4], now + lease, worker)
  is_forgotten = redis.pcall('HEXISTS', KEYS[3], 'birth') == 1 and 0 or 1
end
if #outcomes > 0 then
  acknowledge()
end
if again then
  local held = redis.call('HGETALL', claims)
  for i = 1, #held, 2 do
    local number = held[i + 1]:sub(#claim_id + 2)
    if held[i + 1] == claim_id .. '-' .. number then
      take(held[i], number)
    end
  end
elseif want > 0 and suspended == 0 then
  if not none_waits then
    groups.unblock_due(now)
    rooms, soonest = limits.rooms(paused, now_us)
    for _, batch in ipairs(call('SMEMBERS', 'pm:batches-paused')) do is_paused_batch[batch] = true end
  end
  for _, queue in ipairs(paused) do is_paused[queue] = true end
  if #paused > 0 then
    for _, id in ipairs(call('LRANGE', KEYS[2], 0, -1)) do is_moved_back(id) end
  end
  claim(KEYS[2])
  for i = 7, #KEYS do
    if not is_paused[KEYS[i]:sub(10)] then claim(KEYS[i]) end
  end
  write_gathered()
  if next(rooms) then limits.begin(rooms, now_us) end
end
write_events()
local next_due = (has_blocked or not none_waits) and want > 0 and #jobs == 0 and groups.next_due(now, worker, soonest) or ''
return {stale, parents, jobs, suspended, paused, next_due, is_forgotten}
