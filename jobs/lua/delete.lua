-- Delete a job that waits, is scheduled or has ended, with all that is kept of it.
-- requires: caller, events, guarded, records
-- may use: batches, callbacks, claimants, ending, flow_nodes, withdrawal
--
-- KEYS[1]  the job's record    KEYS[2]  the jobs that depend on it    KEYS[3]  what this call has deleted
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "deleted" if it was, "" if there is no such job, "dependents" if jobs wait for it, "callback" if its callback
--          is due, "claimed" if a worker has it, or "started" or "deferred": it is to be canceled first

local dependents, deleted = KEYS[2], KEYS[3]
local id, now_text = ARGV[1], ARGV[2]

local MOST_DEPENDENTS = 200 -- whose records a call looks at
local SECONDS = 60 -- how late a call whose reply was lost may be sent again

-- Whether RQ's jobs may wait for this one; RQ's code leaves ids of canceled and deleted ones there.
local function waits_for_it()
  if redis.call('EXISTS', dependents) == 0 then return false end
  local ids = guarded.call('SRANDMEMBER', dependents, MOST_DEPENDENTS)
  for _, each in ipairs(ids) do
    if records.get(each, 'status') == 'deferred' then return true end
  end
  return #ids == MOST_DEPENDENTS
end

if not records.exists(id) then return redis.call('SISMEMBER', deleted, id) == 1 and 'deleted' or '' end
local status, queue, group, batch, waits, priority = unpack(
  records.read(id, 'status', 'origin', 'group', 'batch', 'waits', 'priority')
)
status, queue = status or '', queue or ''
caller.at = now_text
if status == 'started' then return status end
if waits_for_it() then return 'dependents' end
if callbacks.due(id, status) then return 'callback' end

local is_node = batch and flow_nodes.may_be(batch, id)
if status == 'deferred' and not waits and not is_node then return status end
if records.is_pending(status) or status == 'created' then
  if withdrawal.remove(id, status, queue, group, batch) == 0 then
    events.write() -- that a key of another type was set aside
    return 'claimed'
  end
  ending.purge(id, queue)
else
  if status ~= 'finished' and claimants.find(id) then return 'claimed' end -- RQ's code cancels what runs
  -- Canceling a batch leaves ids where they wait, and so does RQ's code.
  if status == 'canceled' and (group or batch or priority) then withdrawal.remove(id, 'queued', queue, group, batch) end
  if status == 'canceled' then claimants.withdraw(id) end
  ending.purge(id, queue, true)
end
redis.call('DEL', 'rq:job::' .. id .. ':dependencies')
batches.count_noted()
events.write()
redis.call('SADD', deleted, id)
redis.call('EXPIRE', deleted, SECONDS)
return 'deleted'
