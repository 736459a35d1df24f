-- Cancel the waiting jobs of a batch. Their ids stay in their queues' lists, where workers pass them over.
-- requires: batches, coordination/redis/clock, events, guarded, quarantine, records, scheduled
--
-- KEYS[1]   the batch    KEYS[2]  the leases, which name the workers
-- ARGV[1]   the batch    ARGV[2]  now as RQ's text    ARGV[3+]  ids of its jobs
-- Returns   the ids of running jobs, which must be stopped, and how many jobs workers are about to start

local leases = KEYS[2]
local batch, now_text, ids = ARGV[1], ARGV[2], {unpack(ARGV, 3)}

local call = guarded.call

quarantine.called(now_text)
local claimed = {}
for _, worker in ipairs(call('ZRANGE', leases, 0, -1)) do
  for _, id in ipairs(call('HKEYS', 'pm:claims:' .. worker)) do claimed[id] = true end
end

local about = 0
local running, canceled, states = {}, {}, {}
for _, id in ipairs(ids) do
  local fields = records.read(id, 'status', 'origin')
  local status, queue = fields[1], fields[2]
  if status == 'started' then
    running[#running + 1] = id
  elseif status and claimed[id] then
    about = about + 1
  else
    -- RQ's code alone may have recorded its end, and its record may be gone.
    local is_there = queue and status
    local ended = is_there and batches.state_of(status)
    canceled[#canceled + 1], states[#states + 1] = id, ended or 'c'
    if is_there and not ended then
      redis.call('HSET', records.key(id), 'status', 'canceled', 'ended_at', now_text)
      if status == 'scheduled' then call('ZREM', scheduled.key(queue), id) end
      call('ZADD', 'rq:canceled:' .. queue, clock.second, id)
      events.emit('canceled', id, queue)
    end
  end
end
if #canceled > 0 then batches.count(batch, canceled, states) end
events.write()
return {running, about}
