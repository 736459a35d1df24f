-- Cancel the waiting jobs of a batch. Their ids stay in their queues' lists, where workers pass them over.
--
-- KEYS[1]   the batch    KEYS[2]  the leases, which name the workers
-- ARGV[1]   the batch    ARGV[2]  now as RQ's text    ARGV[3+]  ids of its jobs
-- Returns   the ids of running jobs, which must be stopped, and how many jobs workers are about to start

own.at = ARGV[2]
local claimed = {}
for _, worker in ipairs(call('ZRANGE', KEYS[2], 0, -1)) do
  for _, id in ipairs(call('HKEYS', 'pm:claims:' .. worker)) do claimed[id] = true end
end

local about = 0
local running, canceled, states = {}, {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local record = 'rq:job:' .. id
  local fields = redis.pcall('HMGET', record, 'status', 'origin', 'data')
  local status, queue = fields[1], fields[2]
  if status == 'started' then
    running[#running + 1] = id
  elseif status and claimed[id] then
    about = about + 1
  else
    -- RQ's code alone may have recorded its end, and its record may be gone.
    local is_there = not fields.err and queue and status
    local ended = is_there and batches.state_of(status)
    canceled[#canceled + 1], states[#states + 1] = id, ended or 'c'
    if is_there and not ended then
      redis.call('HSET', record, 'status', 'canceled', 'ended_at', ARGV[2])
      if status == 'scheduled' then call('ZREM', 'rq:scheduled:' .. queue, id) end
      call('ZADD', 'rq:canceled:' .. queue, script_began[1], id)
      emit('canceled', id, queue)
    end
  end
end
if #canceled > 0 then batches.count(ARGV[1], canceled, states) end
write_events()
return {running, about}
