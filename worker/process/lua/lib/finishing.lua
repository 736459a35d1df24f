-- Finishing: acknowledge jobs that finished and need nothing else, which are most. finish_and_claim.lua describes a row.
-- requires: jobs/caller, jobs/ending, jobs/events, jobs/gathered, jobs/records

local finishing = {}

local WIDTH = 13 -- values of a row
local ALL_NEW = 4 -- fields that an end writes: all are new if there was no record, or one that had lost its status
local SURELY_SHORT = 0.04 -- seconds: such a job was not marked as started

finishing.counted = {} -- jobs that their batches have to count, as counting.note takes them

-- The ids that a call is about, those of the outcomes first, and their queues. The keys that ask for more if they exist,
-- of their dependents and of canceled jobs, are added to `unusual`.
function finishing.subjects(outcomes, rows, unusual)
  local ids, queues_of, last = {}, {}, nil
  local function add(id, queue)
    local number = #ids + 1
    ids[number], queues_of[number], unusual[#unusual + 1] = id, queue, records.key(id) .. ':dependents'
    if queue ~= last then unusual[#unusual + 1] = 'rq:canceled:' .. queue end
    last = queue
  end
  for _, outcome in ipairs(outcomes) do add(outcome[1], outcome[3]) end
  for i = 1, #rows, WIDTH do add(rows[i], rows[i + 2]) end
  return ids, queues_of
end

-- An execution that was marked as started, or could have been, is over.
function finishing.unmark(id, execution, queue, seconds)
  gathered.add('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
  if seconds > SURELY_SHORT then records.forget_execution(id, execution) end
end

-- Write the ends of jobs that the worker holds and that are there. The others are stale, unless the call is sent again.
-- `held` has the executions that `claims` name for them behind the first `number`.
function finishing.all(rows, claims, held, number, again, stale)
  local worker = caller.worker
  for i = 1, #rows, WIDTH do
    local id, execution, queue, ttl, started, ended, began, stopped, value, is_marked, from, to, batch =
      unpack(rows, i, i + WIDTH - 1)
    number = number + 1
    if held[number] == execution then
      local new = ending.write(id, 'finished', 'started_at', started, 'ended_at', ended, 'worker_name', worker)
      local was_deleted = new == ALL_NEW and redis.call('HLEN', records.key(id)) == ALL_NEW
      if was_deleted then
        redis.call('DEL', records.key(id))
      elseif new then
        ending.result(id, execution, 1, ttl, false, 'execution_started_at', began, 'execution_ended_at', stopped,
          'return_value', value)
        ending.keep(id, ttl)
        ending.register(id, queue, 'finished', ttl)
      end
      gathered.add('HDEL', claims, id)
      if is_marked then finishing.unmark(id, execution, queue, to - from) end
      if not was_deleted then events.emit('finished', id, queue, worker, {started = from, ended = to}) end
      if batch ~= '' then finishing.counted[#finishing.counted + 1] = {id, 'd', batch, '+' .. value} end
    elseif not again then
      stale[#stale + 1] = id
    end
  end
end

return finishing
