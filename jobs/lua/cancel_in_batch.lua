-- Cancel the waiting jobs of a batch. Their ids stay in their queues' lists, where workers pass them over.
-- requires: caller, events, records
-- may use: batches, counting, ending, withdrawal
--
-- KEYS[1]  the batch
-- ARGV[1]  the batch    ARGV[2]  now as RQ's text    ARGV[3]  how many of the ids are claimed by no worker
-- ARGV[4+] ids of its jobs, those that are claimed last; none can be claimed any more, since the batch is paused
-- Returns  the ids of running jobs, which must be stopped, and how many jobs workers are about to start

local batch, now_text, unclaimed, ids = ARGV[1], ARGV[2], tonumber(ARGV[3]), {unpack(ARGV, 4)}

caller.at = now_text

local about = 0
local running = {}
for i, id in ipairs(ids) do
  local fields = records.read(id, 'status', 'origin')
  local status, queue = fields[1], fields[2]
  if status == 'started' then
    running[#running + 1] = id
  elseif queue and i > unclaimed then
    about = about + 1
  else
    -- RQ's code alone may have recorded its end, and its record may be gone.
    local ended = counting.state_of(status)
    if queue and not ended then
      if status == 'scheduled' or status == 'deferred' then withdrawal.remove(id, status, queue) end
      ending.cancel(id, queue)
    end
    counting.note(id, ended or 'c', batch)
  end
end
batches.count_noted()
events.write()
return {running, about}
