-- Acknowledging: each outcome counts once, and only while the worker's claims name its execution.
-- requires: coordination/redis/clock, jobs/counting, jobs/ending, jobs/gathered, jobs/gone, jobs/guarded
-- requires: jobs/records, outcomes
-- may use: jobs/batches, jobs/limits, jobs/scheduled, jobs/singletons

local acknowledge = {}

local now = clock.now
local SURELY_SHORT = 0.04 -- seconds: such a job was not marked as started

-- Jobs of this call that somebody canceled by RQ's code while they ran: they stay canceled.
local function find_canceled(all)
  local found, by_queue = {}, {}
  for _, outcome in ipairs(all) do
    local ids = by_queue[outcome[3]] or {}
    by_queue[outcome[3]], ids[#ids + 1] = ids, outcome[1]
  end
  for queue, ids in pairs(by_queue) do
    local scores = redis.pcall('ZMSCORE', 'rq:canceled:' .. queue, unpack(ids))
    for i = 1, #scores do
      if scores[i] and records.get(ids[i], 'status') == 'canceled' then found[ids[i]] = true end
    end
  end
  return found
end

-- Accept an outcome of a job that the worker holds.
local function accept(outcome, is_there, is_canceled, claims)
  local id, execution, queue, status, ttl, kind, _, _, began, stopped, _, result, fields, _, delay, is_marked, _, needs, batch,
    callback = unpack(outcome, 1, 20)
  local goes_back = status == 'queued' or status == 'scheduled'
  local is_replaced = goes_back and needs ~= '' and singletons.was_replaced(id, needs)
  if is_replaced and kind > 0 then
    status, kind, callback, outcome[4], outcome[6] = 'stopped', 3, 'stopped', 'stopped', 3
  end
  if is_there and ending.is_end(status) then gone.note(id, ttl) end
  if needs ~= '' then limits.release(needs, id, kind == 0, status == 'queued' and delay > 0) end
  if is_there and (status == 'settled' or status == 'due') then
    outcomes.settle(id, execution, queue, status, fields, delay)
  elseif is_there and is_replaced and kind == 0 then
    ending.cancel(id, queue, 'replaced')
  elseif is_there then
    if is_canceled then status, outcome[4] = 'canceled', 'canceled' end
    outcomes.write(callback, unpack(outcome, 1, 16))
    if goes_back and needs ~= '' then singletons.goes_back(id, needs, delay) end
  end
  if batch ~= '' then
    local state = counting.state_of(status)
    counting.note(id, state, batch, (state == 'd' and '+' or '-') .. result)
  end
  gathered.add('HDEL', claims, id)
  if is_marked then
    gathered.add('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
    if kind == 0 or stopped - began > SURELY_SHORT then records.forget_execution(id, execution) end
  end
end

-- Write the outcomes. `held` has the executions that `claims` name for their jobs; the call is sent `again` if it was
-- done before; no record has dependents if `is_plain`, and a job may be canceled if `some_canceled`. Stale ids and those
-- of jobs with dependents are added to `stale` and `parents`.
function acknowledge.all(all, claims, hash, held, again, is_plain, some_canceled, stale, parents)
  local keys = {}
  for i, outcome in ipairs(all) do keys[i] = records.key(outcome[1]) end
  local none_deleted = redis.call('EXISTS', unpack(keys)) == #keys
  local canceled = some_canceled and find_canceled(all) or {}
  for i, outcome in ipairs(all) do
    local id, is_there = outcome[1], none_deleted or redis.call('EXISTS', keys[i]) == 1
    local is_held = held[i + 1] == outcome[2]
    local is_end = ending.is_end(outcome[4])
    if is_held then
      accept(outcome, is_there, canceled[id], claims)
      is_end = is_end or ending.is_end(outcome[4]) -- of a singleton that was replaced, and would have run again
    elseif not again then
      stale[#stale + 1] = id
    end
    if is_there and not is_plain and is_end and (is_held or again)
      and redis.call('EXISTS', keys[i] .. ':dependents') == 1 then
      parents[#parents + 1] = id
      if is_held then guarded.call('ZADD', 'pm:parents', now, id) end -- until someone has enqueued its dependents
    end
  end
  for counter, by in pairs(outcomes.counts) do
    redis.pcall('HINCRBY', hash, counter, by)
  end
  if outcomes.seconds > 0 then
    redis.pcall('HINCRBYFLOAT', hash, 'total_working_time', string.format('%.6f', outcomes.seconds))
  end
  gathered.write()
  if outcomes.has_scheduled then scheduled.notify() end
  if next(counting.noted) then batches.count_noted() end
end

return acknowledge
