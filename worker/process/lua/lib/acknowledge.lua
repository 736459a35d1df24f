-- Acknowledging: each outcome counts once, and only while the worker's claims name its execution.
-- requires: coordination/redis/clock, finishing, jobs/counting, jobs/ending, jobs/gathered, jobs/gone, jobs/guarded
-- requires: jobs/records, outcomes
-- may use: jobs/belongings, jobs/errors, jobs/limits, jobs/scheduled, jobs/singletons, saying, waiting_jobs

local acknowledge = {}

local now = clock.now
local WIDTH = 13 -- values of a row, as in finishing.lua

-- Whether one of these jobs has dependents, and those that somebody canceled by RQ's code while they ran, which stay
-- canceled. `queues_of` has the jobs' queues.
function acknowledge.look(ids, queues_of)
  local dependents, canceled, by_queue = {}, {}, {}
  for i, id in ipairs(ids) do
    dependents[i] = records.key(id) .. ':dependents'
    local there = by_queue[queues_of[i]] or {}
    by_queue[queues_of[i]], there[#there + 1] = there, id
  end
  for queue, there in pairs(by_queue) do
    local scores = redis.pcall('ZMSCORE', 'rq:canceled:' .. queue, unpack(there))
    for i = 1, #scores do
      if scores[i] and records.get(there[i], 'status') == 'canceled' then canceled[there[i]] = true end
    end
  end
  return #ids > 0 and redis.call('EXISTS', unpack(dependents)) > 0, canceled
end

-- Append the rows, as outcomes, to `others`. Returns the rows that are left: none.
function acknowledge.append(rows, others)
  for i = 1, #rows, WIDTH do
    local id, execution, queue, ttl, started, ended, began, stopped, value, is_marked, _, _, batch =
      unpack(rows, i, i + WIDTH - 1)
    others[#others + 1] = {id, execution, queue, 'finished', ttl, 1, started, ended, began, stopped, 'return_value',
      value, {}, false, 0, is_marked, false, '', batch, ''}
  end
  return {}
end

-- Accept an outcome of a job that the worker holds.
local function accept(outcome, is_there, is_canceled, claims)
  local id, execution, queue, status, ttl, kind, _, _, began, stopped, _, result, fields, _, delay, is_marked, _, needs, batch,
    callback = unpack(outcome, 1, 20)
  local said = outcome[22]
  if said and is_there then saying.write(id, execution, unpack(said)) end
  local waits = status == 'waiting' and not is_canceled
  local goes_back = status == 'queued' or status == 'scheduled' or waits
  local is_replaced = goes_back and needs ~= '' and singletons.was_replaced(id, needs)
  if is_replaced and kind > 0 then
    status, kind, callback, outcome[4], outcome[6] = 'stopped', 3, 'stopped', 'stopped', 3
  end
  if is_there and ending.is_end(status) then gone.note(id, ttl) end
  if needs ~= '' then limits.release(needs, id, kind == 0 and not waits and execution, status == 'queued' and delay > 0) end
  if is_there and (status == 'settled' or status == 'due') then
    outcomes.settle(id, execution, queue, status, fields, delay)
  elseif is_replaced and kind == 0 then
    ending.cancel(id, queue, 'replaced')
  elseif is_there then
    if is_canceled then status, outcome[4], outcome[13] = 'canceled', 'canceled', {} end
    if waits then
      waiting_jobs.wait(id, queue, fields)
      outcomes.has_scheduled = true
    else
      outcomes.write(callback, unpack(outcome, 1, 16))
    end
    local failure, traceback = outcome[21], outcome[11] == 'exc_string' and result or ''
    if failure then errors.count(failure, id, queue, traceback, status == 'failed') end
    if goes_back and needs ~= '' then singletons.goes_back(id, needs, delay) end
  end
  if batch ~= '' then
    local state = counting.state_of(status)
    counting.note(id, state, batch, (state == 'd' and '+' or '-') .. result)
  end
  if said then belongings.follow(id) end
  gathered.add('HDEL', claims, id)
  if is_marked then finishing.unmark(id, execution, queue, kind == 0 and math.huge or stopped - began) end
end

-- Write the outcomes. `held` has the executions that `claims` name for their jobs; the call is sent `again` if it was
-- done before. Stale ids and those of jobs with dependents are added to `stale` and `parents`.
function acknowledge.all(all, claims, held, again, has_dependents, canceled, stale, parents)
  for i, outcome in ipairs(all) do
    local id, key = outcome[1], records.key(outcome[1])
    local is_there, is_held = redis.call('EXISTS', key) == 1, held[i + 1] == outcome[2]
    local is_end = ending.is_end(outcome[4])
    if is_held then
      accept(outcome, is_there, canceled[id], claims)
      is_end = is_end or ending.is_end(outcome[4]) -- of a singleton that was replaced, and would have run again
    elseif not again then
      stale[#stale + 1] = id
    end
    if is_there and has_dependents and is_end and (is_held or again)
      and redis.call('EXISTS', key .. ':dependents') == 1 then
      parents[#parents + 1] = id
      if is_held then guarded.call('ZADD', 'pm:parents', now, id) end -- until someone has enqueued its dependents
    end
  end
  if outcomes.has_scheduled then
    gathered.write()
    scheduled.notify()
  end
end

return acknowledge
