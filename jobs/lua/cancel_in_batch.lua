-- Cancel those of a batch's jobs that wait. Their ids stay in their queues' lists, and workers pass them over there.
--
-- KEYS[1]   the batch
-- ARGV[1]   the batch    ARGV[2]  now as RQ's text    ARGV[3+]  ids of its jobs
-- Returns   the ids of those that run, which must be told to stop

local WAITS = {queued = true, scheduled = true, deferred = true}
own.at = ARGV[2]
local running, canceled, states = {}, {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local record = 'rq:job:' .. id
  local fields = redis.pcall('HMGET', record, 'status', 'origin', 'data')
  local status, queue = fields[1], fields[2]
  if status == 'started' then
    running[#running + 1] = id
  elseif fields.err or not queue or WAITS[status] then
    canceled[#canceled + 1], states[#states + 1] = id, 'c' -- its record may be gone
    if not fields.err and queue then
      redis.call('HSET', record, 'status', 'canceled', 'ended_at', ARGV[2])
      if status == 'scheduled' then call('ZREM', 'rq:scheduled:' .. queue, id) end
      call('ZADD', 'rq:canceled:' .. queue, script_began[1], id)
      tell('canceled', id, queue)
    end
  end
end
if #canceled > 0 then batches.count(ARGV[1], canceled, states) end
write_events()
return running
