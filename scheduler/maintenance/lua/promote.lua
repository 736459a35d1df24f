-- Move due jobs from the scheduled ones to their queues, the longest due first, and unblock groups that are due.
--
-- KEYS[1]  the set of queues
-- ARGV[1]  the most jobs to move, shared by the queues with due jobs, but at least one of each
-- ARGV[2]  now as RQ's text    ARGV[3]  the leader's term, or ""    ARGV[4]  seconds for which it leads from now on
-- ARGV[5]  a cursor among the queues, "0" at first    ARGV[6]  about how many queues to check
-- Returns  seconds until the next job of these queues is due as text, or "" if none is scheduled, and the next
--          cursor, "0" after the last; "not leading" if another leads

if ARGV[3] ~= '' then
  if not leads(ARGV[3]) then return 'not leading' end
  redis.pcall('HSET', 'pm:leader', 'until', string.format('%.3f', now + ARGV[4])) -- a full memory refuses this
end

own.at = ARGV[2]

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

-- Jobs would be lost if their queue's key held another type.
local function make_way(list)
  local found = redis.call('TYPE', list).ok
  if found ~= 'list' and found ~= 'none' then
    set_aside(list, 'the key holds a ' .. found .. ' instead of a list')
    redis.call('RENAME', list, 'pm:broken:' .. list)
  end
end

-- RQ schedules an id before it writes the record, so an id without one stays scheduled for a while.
local WRITTEN_WITHIN, CHECK_SECONDS = 10, 0.5

local function await_record(scheduled, id)
  local key = 'pm:unwritten:' .. id
  local since = tonumber(redis.pcall('GET', key))
  if since and now - since > WRITTEN_WITHIN then return end -- it has expired, or was deleted
  if not since then redis.call('SET', key, string.format('%.3f', now), 'EX', 6 * WRITTEN_WITHIN) end
  redis.call('ZADD', scheduled, string.format('%.6f', now + CHECK_SECONDS), id)
end

local function promote(queue, most)
  local scheduled, list = 'rq:scheduled:' .. queue, 'rq:queue:' .. queue
  local ids = redis.call('ZRANGEBYSCORE', scheduled, '-inf', string.format('%.6f', now), 'LIMIT', 0, most)
  local pushed = {RPUSH = {}, LPUSH = {}}
  make_way(list)
  redis.call('ZREM', scheduled, unpack(ids))
  for _, id in ipairs(ids) do
    local record = 'rq:job:' .. id
    local fields = redis.pcall('HMGET', record, 'data', 'enqueue_at_front', 'group')
    if not fields.err and not fields[1] and redis.call('EXISTS', record) == 0 then
      await_record(scheduled, id)
    elseif fields.err or not fields[1] then
      set_aside(id, fields.err or 'the record holds no data')
    else
      local push = fields[2] == '1' and 'LPUSH' or 'RPUSH'
      redis.call('HSET', record, 'status', 'queued', 'enqueued_at', ARGV[2])
      if fields[3] then
        groups.join(queue, fields[3], id, push)
      else
        pushed[push][#pushed[push] + 1] = id
      end
      emit('promoted', id, queue)
    end
  end
  for push, all in pairs(pushed) do
    if #all > 0 then redis.call(push, list, unpack(all)) end
  end
end

local due, nearest = {}, math.huge
local found = call('SSCAN', KEYS[1], ARGV[5], 'COUNT', ARGV[6])
for _, key in ipairs(found[2]) do
  local queue = key:sub(10)
  local first = math.max(first_of('rq:scheduled:' .. queue), now + shared_for(queue))
  if first <= now then due[#due + 1] = queue else nearest = math.min(nearest, first) end
end

local share = math.max(1, math.floor(ARGV[1] / math.max(1, #due)))
for _, queue in ipairs(due) do promote(queue, share) end
for _, queue in ipairs(due) do nearest = math.min(nearest, first_of('rq:scheduled:' .. queue)) end
groups.unblock_due(now)
nearest = math.min(nearest, first_of('pm:due'))
write_events()
return {nearest < math.huge and string.format('%.6f', nearest - now) or '', found[1]}
