-- Acknowledge the outcomes of one claim and claim the next jobs, in one atomic step.
-- requires: coordination/redis/clock, gathered, jobs/caller, jobs/events, jobs/guarded, jobs/queues
-- requires: jobs/records
-- may use: acknowledge, jobs/callbacks, jobs/corrupt, jobs/groups, jobs/limits, statistics, worker/renewal
--
-- KEYS[1]  the worker's claims: a hash of job id to execution id
-- KEYS[2]  the worker's waiting list: ids that a blocking move brought here
-- KEYS[3]  the worker's RQ hash    KEYS[4]  the leases    KEYS[5]  rq:suspended
-- KEYS[6+] the queues' lists, in the order in which they are served
-- ARGV[1]  msgpack: [mark, claim id, last claim id or "", jobs wanted, worker, now as RQ's text, lease in seconds or 0, [outcome, ...]]
--          the mark is the field of the claims that names the last claim, which may be sent again; if it names
--          neither this claim nor the last one, the server has lost history
--          an outcome is the array of worker/process/outcome.py's Outcome
-- ARGV[2]  the statistics of the outcomes (lib/statistics.lua), or ""
-- Returns  [ids of stale outcomes, ids with dependents to enqueue, [job, ...], 1 while all workers are suspended,
--          names of paused queues, seconds until a blocked group goes on, as text, if this worker is to look then,
--          1 if RQ no longer knows the worker, asked when its lease is renewed, 1 if the server lost history]
--          a job is [id, execution id, origin, data, timeout, [each of WANTED but the last two, or nothing, and
--          repeat_intervals of a job that repeats] or nothing, enqueued_at, nothing, or for a job whose callback is due
--          what callbacks.row returns]; for expires_at it has the seconds that are left
--
-- An outcome counts only while the claims name its execution: a worker that has lost its lease changes nothing.
-- If it is sent again with the same claim id, the script returns the same jobs and acknowledges nothing twice: a
-- lost reply loses and doubles nothing.

local claims, waiting, hash, leases, suspended, lists = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], {unpack(KEYS, 6)}
local request, counts = ARGV[1], ARGV[2]

local WANTED = {'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals', 'attempts', 'enqueue_at_front_on_retry',
  'expires_at', 'checkpoint', 'group', 'limits', 'batch', 'trace', 'unknown_since',
  'success_callback_name', 'failure_callback_name', 'stopped_callback_name', 'webhooks', 'repeats_left', 'status', 'enqueued_at'}
local LAST_RARE = #WANTED + 1 -- three fields are read before these, and the last two are not rare

local mark, claim_id, last_id, want, worker, now_text, lease, outcomes = unpack(cmsgpack.unpack(request))
local stale, parents, jobs = {}, {}, {}
local call, now = guarded.call, clock.now

caller.at, caller.worker = now_text, worker

-- Which of the acknowledged jobs the worker still holds, and which claim was its last.
local ids, extras = {}, {suspended, 'pm:paused', 'pm:due', 'pm:queue-rates', 'pm:batches-paused'}
for i, outcome in ipairs(outcomes) do
  ids[i], extras[i + 5] = outcome[1], records.key(outcome[1]) .. ':dependents'
end
local held = call('HMGET', claims, mark, unpack(ids))
local again = held[1] == claim_id
local has_lost = last_id ~= '' and held[1] ~= last_id and not again and 1 or 0
local is_plain = redis.call('EXISTS', unpack(extras)) == 0
local is_suspended = is_plain and 0 or redis.call('EXISTS', suspended)
local paused = is_plain and {} or call('SMEMBERS', 'pm:paused')

-- The first write is one that a full memory refuses, so nothing leaves a list unless all can be written.
if want + #outcomes > 0 then
  redis.call('HSET', claims, mark, claim_id)
end

local looks = 4 * want + 64 -- how many jobs that may not run a call looks at
local has_followed, has_blocked = false, false
local is_paused, rooms, soonest, is_paused_batch = {}, {}, math.huge, {}

-- Whether a job's batch is paused; each batch is looked up once.
local function is_held(batch)
  if is_plain or not batch then return false end
  if is_paused_batch[batch] == nil then is_paused_batch[batch] = call('SISMEMBER', 'pm:batches-paused', batch) == 1 end
  return is_paused_batch[batch]
end

-- Add a job to the reply; whether it may run and its record is intact.
local function take(id, number)
  local execution = claim_id .. '-' .. number
  local values = records.read(id, 'origin', 'data', 'timeout', unpack(WANTED))
  if values.err then
    corrupt.set_aside(id, values.err)
    return false
  elseif not values[2] then
    -- A record that expired or was deleted while its id waited is no loss, but half a record is.
    if records.exists(id) then corrupt.set_aside(id, 'the record holds no data') end
    return false
  end
  local group, needs, batch = values[12] or values[13], values[13], values[14]
  local status = values[LAST_RARE + 1] or 'queued'
  if status ~= 'queued' and status ~= 'created' then
    local row = callbacks.row(id, status)
    if row then
      jobs[#jobs + 1] = {id, execution, values[1], '', values[3], false, values[LAST_RARE + 2], row}
      return true
    elseif not again then -- a cancel left its id there, or somebody added it twice
      if group then has_followed = groups.leave(values[1] or '', group, id) or has_followed end
      return false
    end
  end
  if again then
    -- it was allowed to run before
  elseif is_held(batch) then
    if group then groups.leave(values[1] or '', group, id) end
    call('RPUSH', 'pm:batch:' .. batch .. ':held', id)
    return false
  end
  local expires_at = tonumber(values[10])
  if expires_at then values[10] = string.format('%.6f', expires_at - now) end
  if group and values[1] and not again then
    local holder = worker .. ' ' .. claim_id .. '-'
    local may_run, follows, is_blocked = limits.claim(values[1], group, needs, id, holder, number, clock.microseconds)
    has_followed, has_blocked = has_followed or follows, has_blocked or is_blocked
    if not may_run then return false end
  end
  local rare = false
  for i = 4, LAST_RARE do
    if values[i] then
      rare = {unpack(values, 4, LAST_RARE)}
      if values[LAST_RARE] then rare[LAST_RARE - 2] = records.get(id, 'repeat_intervals') or false end
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
  local room = rooms[queues.name(list)]
  local asked = math.min(want - #jobs, room and room.free - room.begun or want)
  local ids = asked > 0 and queues.take(list, asked) or {}
  for _, id in ipairs(ids) do
    looks = looks - 1
    local number = #jobs + 1
    if take(id, number) then
      gathered.add('HSET', claims, id, claim_id .. '-' .. number) -- mark_started.lua marks those that run for a moment
    end
  end
  if #ids > 0 and (has_followed or #ids == asked) and looks > 0 then claim(list) end -- what is behind jobs that may not run
end

-- Return a job that a blocking move brought from a queue that is paused.
local function move_back(id)
  local queue = records.get(id, 'origin')
  if not queue or not is_paused[queue] then return end
  redis.call('LREM', waiting, 1, id)
  queues.push(queue, id, 'LPUSH')
end

local is_forgotten = 0
if lease > 0 then
  renewal.renew(leases, now + lease, {worker})
  is_forgotten = redis.pcall('HEXISTS', hash, 'birth') == 1 and 0 or 1
end
if #outcomes > 0 then
  local blocks = acknowledge.all(outcomes, claims, hash, held, again, is_plain, stale, parents)
  if counts ~= '' and not again and #stale == 0 then statistics.count(counts, worker, now) end
  if blocks then is_plain = false end
  for _, id in ipairs(acknowledge.due) do
    local number = #jobs + 1
    if take(id, number) then redis.call('HSET', claims, id, claim_id .. '-' .. number) end
  end
end
if again then
  local all = redis.call('HGETALL', claims)
  for i = 1, #all, 2 do
    local number = all[i + 1]:sub(#claim_id + 2)
    if all[i + 1] == claim_id .. '-' .. number then
      take(all[i], number)
    end
  end
elseif want > 0 and is_suspended == 0 then
  if not is_plain then
    groups.unblock_due(now)
    rooms, soonest = limits.rooms(paused, clock.microseconds)
  end
  for _, queue in ipairs(paused) do is_paused[queue] = true end
  if #paused > 0 then
    for _, id in ipairs(call('LRANGE', waiting, 0, -1)) do move_back(id) end
  end
  claim(waiting)
  for _, list in ipairs(lists) do
    if not is_paused[queues.name(list)] then claim(list) end
  end
  gathered.write()
  if next(rooms) then limits.begin(rooms, clock.microseconds) end
end
events.write()
local next_due = (has_blocked or not is_plain) and want > 0 and #jobs == 0 and groups.next_due(now, worker, soonest) or ''
return {stale, parents, jobs, is_suspended, paused, next_due, is_forgotten, has_lost}
