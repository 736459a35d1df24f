-- Enqueue a failed, stopped or canceled job again. Its deaths start from zero, its retries do not.
-- requires: caller, claimants, coordination/redis/clock, ending, events, guarded, queues, records
-- may use: batches, callbacks, deferring, flow_nodes, groups, singletons, withdrawal
--
-- KEYS[1]  the job's record    KEYS[2]  the places of unique jobs
-- ARGV[1]  the job    ARGV[2]  now as RQ's text
-- Returns  "retried" if it was, "waits" if it waits for others of its flow first, "" if there is no such job,
--          "held <id>" if another job holds its place, "claimed <worker>" if that still runs it or its callback, "behind"
--          if its flow can't run it since others failed, otherwise its unchanged status

local places = KEYS[2]
local id, now_text = ARGV[1], ARGV[2]

local call = guarded.call
caller.at = now_text
local status, queue, data, group, unique, batch, needs, priority, enqueued_at = unpack(
  records.read(id, 'status', 'origin', 'data', 'group', 'unique', 'batch', 'limits', 'priority', 'enqueued_at')
)
if not queue or not data then
  return ''
end
if enqueued_at == now_text then return status == 'deferred' and 'waits' or 'retried' end -- this call is sent again
if status ~= 'failed' and status ~= 'stopped' and status ~= 'canceled' then
  return status or ''
end

local verdict = batch and flow_nodes.verdict_on(batch, id) or 'd'
if verdict == 'c' or verdict == 's' then return 'behind' end

local worker = claimants.find(id)
if worker then return 'claimed ' .. worker end

local other = singletons.other(queue, group, needs, id)
local holder, till = (unique and call('HGET', places, unique) or ''):match('^(%S+) (%S+)$')
if not other and unique then
  other = records.is_pending(records.get(holder or '', 'status')) and holder
end
if other then return 'held ' .. other end
local keeps_place = holder == id and (tonumber(till) or 0) > clock.now
if unique and not keeps_place then call('HSET', places, unique, id .. ' 0') end

-- Canceling a batch leaves ids where they wait, and so does RQ's code with jobs of groups and in bands.
if status == 'canceled' and (group or batch or priority) then withdrawal.remove(id, 'queued', queue, group, batch) end
if callbacks.due(id, status) then callbacks.leave(id, queue, true) end
claimants.withdraw(id)
if verdict == 'p' then
  deferring.again(id, status)
else
  groups.join(queue, group, id, 'RPUSH')
  ending.undo(id, queue, 'queued')
  queues.register(queue)
end
batches.count_noted()
events.write()
return verdict == 'p' and 'waits' or 'retried'
