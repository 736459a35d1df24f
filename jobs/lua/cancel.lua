-- Cancel a job that has not started: remove it from where it waits, and keep its record as canceled.
-- requires: caller, events, records
-- may use: batches, ending, flow_nodes, withdrawal
--
-- KEYS[1]  the job's record
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "canceled" if it was, "" if there is no such job, "claimed" if a worker is about to start it,
--          otherwise its unchanged status

local id, now_text = ARGV[1], ARGV[2]

local status, queue, data, group, batch, waits = unpack(
  records.read(id, 'status', 'origin', 'data', 'group', 'batch', 'waits')
)
if not data then
  return ''
end
status, queue = status or '', queue or ''

-- One that waits until others have ended is canceled here if these are of its flow.
local is_deferred = status == 'deferred' and not waits and not (batch and flow_nodes.may_be(batch, id))
if is_deferred or not records.is_pending(status) and status ~= 'created' or status == 'started' then
  return status
end
caller.at = now_text
if withdrawal.remove(id, status, queue, group, batch) == 0 then
  events.write() -- that a key of another type was set aside
  return 'claimed'
end
ending.cancel(id, queue)
batches.count_noted()
events.write()
return 'canceled'
