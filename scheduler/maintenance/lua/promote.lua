-- Move due jobs from the scheduled ones to their queues, the longest due first, and unblock groups that are due.
-- requires: coordination/redis/clock, jobs/caller, jobs/events, jobs/guarded, jobs/queues, jobs/records
-- requires: scheduler/fence
-- may use: jobs/bands, jobs/batches, jobs/corrupt, jobs/groups, jobs/scheduled, jobs/singletons
--
-- KEYS[1]  the set of queues
-- ARGV[1]  the most jobs to move, shared by the queues with due jobs, but at least one of each
-- ARGV[2]  now as RQ's text    ARGV[3]  the leader's term, or ""    ARGV[4]  seconds for which it leads from now on
-- ARGV[5]  a cursor among the queues, "0" at first    ARGV[6]  about how many queues to check
-- Returns  seconds until the next job of these queues is due as text, "inf" if none is scheduled, and the next
--          cursor, "0" after the last; "not leading" if another leads

local known_queues = KEYS[1]
local most_in_all, now_text, term, leads_for, cursor, queues_to_check = unpack(ARGV)

local call, now = guarded.call, clock.now
if term ~= '' then
  if not fence.leads(term) then return 'not leading' end
  redis.pcall('HSET', 'pm:leader', 'until', string.format('%.3f', now + leads_for)) -- a full memory refuses this
end

caller.at = now_text

-- The first time in a sorted set of times.
local function first_of(key) return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or math.huge end

-- RQ's own schedulers check every second whether they still have a queue's lock, and leave the queue alone if not. We
-- take the lock from the one that has it, and leave the queue's jobs to it for as long as it may take to notice.
local LOCK_SECONDS, NOTICE_SECONDS = 60, 3

-- Seconds for which RQ's scheduler may still move jobs of a queue, 0 if only ours may.
local function shared_for(queue)
  local lock = 'rq:scheduler-lock:' .. queue
  local holder = redis.pcall('GET', lock)
  if holder == 'packmule' then
    local left = redis.call('PTTL', lock) / 1000
    if left > LOCK_SECONDS then return left - LOCK_SECONDS end
    if left > LOCK_SECONDS / 2 then return 0 end
  end
  local is_taken = holder and holder ~= 'packmule'
  redis.pcall('SET', lock, 'packmule', 'EX', LOCK_SECONDS + (is_taken and NOTICE_SECONDS or 0))
  return is_taken and NOTICE_SECONDS or 0
end

-- RQ schedules an id before it writes the record, so an id without one stays scheduled for a while.
local WRITTEN_WITHIN, CHECK_SECONDS = 10, 0.5

local function await_record(queue, id)
  local key = 'pm:unwritten:' .. id
  local since = tonumber(redis.pcall('GET', key))
  if since and now - since > WRITTEN_WITHIN then return end -- it has expired, or was deleted
  if not since then redis.call('SET', key, string.format('%.3f', now), 'EX', 6 * WRITTEN_WITHIN) end
  redis.call('ZADD', scheduled.key(queue), string.format('%.6f', now + CHECK_SECONDS), id)
end

local function promote(queue, most)
  local ids = redis.call('ZRANGEBYSCORE', scheduled.key(queue), '-inf', string.format('%.6f', now), 'LIMIT', 0, most)
  local pushed = {RPUSH = {}, LPUSH = {}}
  queues.make_way(queue) -- or these jobs would be lost
  redis.call('ZREM', scheduled.key(queue), unpack(ids))
  for _, id in ipairs(ids) do
    local fields = records.read(id, 'data', 'enqueue_at_front', 'group', 'limits', 'attempts', 'unknown_since', 'priority',
      'steps')
    local data, at_front, group, needs, attempts, unknown_since, priority, has_steps = unpack(fields, 1, 8)
    if not data and not records.exists(id) then
      await_record(queue, id)
    elseif not data then
      corrupt.set_aside(id, fields.err or 'the record holds no data')
    else
      local push = at_front == '1' and 'LPUSH' or 'RPUSH'
      redis.call('HSET', records.key(id), 'status', 'queued', 'enqueued_at', now_text)
      if group then
        local is_new = not attempts and not unknown_since and not has_steps
        if is_new then singletons.replace(queue, group, needs) end
        groups.join(queue, group, id, push, priority or 0)
      elseif priority then
        queues.push(queue, id, push, priority)
      else
        pushed[push][#pushed[push] + 1] = id
      end
      events.emit('promoted', id, queue)
    end
  end
  for push, all in pairs(pushed) do
    if #all > 0 then redis.call(push, queues.key(queue), unpack(all)) end
  end
end

local due, nearest = {}, math.huge
local found = call('SSCAN', known_queues, cursor, 'COUNT', queues_to_check)
for _, key in ipairs(found[2]) do
  local queue = queues.name(key)
  if bands.is_band(key) then
    pcall(bands.repair, key) -- a full memory refuses that
  else
    local first = math.max(first_of(scheduled.key(queue)), now + shared_for(queue))
    if first <= now then due[#due + 1] = queue else nearest = math.min(nearest, first) end
  end
end

local share = math.max(1, math.floor(most_in_all / #due))
for _, queue in ipairs(due) do promote(queue, share) end
for _, queue in ipairs(due) do nearest = math.min(nearest, first_of(scheduled.key(queue))) end
groups.unblock_due(now)
if #due > 0 then batches.count_noted() end
nearest = math.min(nearest, first_of('pm:due'))
events.write()
return {string.format('%.6f', nearest - now), found[1]}
