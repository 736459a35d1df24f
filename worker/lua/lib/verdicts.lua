-- Verdicts: what becomes of a job that a worker loses. rescue.lua describes them.
-- requires: jobs/ending, jobs/guarded, jobs/records, returning
-- may use: jobs/belongings, jobs/callbacks, jobs/errors, jobs/index, jobs/limits, jobs/quarantine, jobs/singletons
-- may use: retrying

local verdicts = {}

local LONGEST_NAME = 200

-- The script sets these, which are arguments of rescue.lua.
verdicts.verdict, verdicts.named, verdicts.deaths, verdicts.reason, verdicts.report = nil, nil, nil, nil, nil

verdicts.failed = {} -- ids

local function fail(id, execution, queue, is_stopped)
  local status, ttl = is_stopped and 'stopped' or 'failed', ending.failure_ttl(id)
  local is_due = callbacks.begin(id, status, is_stopped and 'stopped' or 'failure', 'end', ttl)
  if is_due then callbacks.postpone(id, queue) end
  local keep = is_due and callbacks.keep(ttl) or ttl
  ending.fail(id, execution, queue, status, ttl, keep, verdicts.reason, verdicts.verdict)
  index.add_failed(id, queue, records.get(id, 'data'))
  -- A pool enqueues these at its next look, since nobody else knows of them.
  if redis.call('EXISTS', records.key(id) .. ':dependents') == 1 then guarded.call('ZADD', 'pm:parents', 0, id) end
  verdicts.failed[#verdicts.failed + 1] = id
end

-- Whether the verdict is about this execution. Any other goes back unchanged: it may not have started.
function verdicts.is_named(execution) return verdicts.named:find(execution .. ' ', 1, true) ~= nil end

-- Whether the job ends here: it was canceled, overran, or its process died too often.
local function is_over(id, execution)
  local record, verdict = records.key(id), verdicts.verdict
  if not verdicts.is_named(execution) then
    return false
  elseif verdict == 'died' then
    if verdicts.report ~= '' then redis.call('HSET', record, 'crash', verdicts.report) end
    local count = redis.pcall('HINCRBY', record, 'deaths', 1)
    return type(count) ~= 'number' or count >= tonumber(verdicts.deaths) -- a corrupt count may have been anything
  end
  return verdict == 'stopped' or verdict == 'overran'
end

local FAILURES = {
  died = {'Died', 'its process died'}, overran = {'Killed', 'its process was killed, since it overran a limit'},
  vanished = {'Vanished', 'its worker vanished while it ran'},
}

-- The failure, as errors.count takes it, of a job that this verdict is about; nothing if it is none. RQ's and our
-- descriptions begin with the name of the job's callable.
local function failure_of(id, execution)
  local verdict = verdicts.verdict
  local kind, text = unpack(FAILURES[verdict] or {})
  local has_run = verdicts.is_named(execution) or verdict == 'vanished' and records.get(id, 'status') == 'started'
  if not kind or not has_run then return end
  local job = (records.get(id, 'description') or ''):sub(1, LONGEST_NAME):match('^[%w_.]*')
  return {redis.sha1hex(kind .. ' ' .. job):sub(1, 12), kind, text, '', job, ''}
end

-- Give up the callback of a job: it was stopped, overran or killed its process too often.
local function give_up(id, queue)
  local how = verdicts.verdict == 'died' and 'died' or 'was killed'
  quarantine.note(id, 'its callback was given up, since its process ' .. how)
  if callbacks.settle(id, queue) then callbacks.postpone(id, queue) end
  belongings.follow(id)
end

-- A callback that the worker had claimed goes back or is given up, unless RQ's code enqueued its job again.
local function apply_to_callback(id, execution)
  local queue, is_due = returning.queue_of(id)
  if not is_due or not callbacks.is_held(id, execution) then return end
  if is_over(id, execution) then give_up(id, queue) else callbacks.postpone(id, queue) end
end

-- A job that the worker had claimed ends or goes back.
function verdicts.apply(id, execution)
  if records.is_callback(execution) then return apply_to_callback(id, execution) end
  local queue, is_due = returning.queue_of(id)
  local needs = records.get(id, 'limits')
  if needs then limits.release(needs, id, verdicts.verdict == 'returned' and execution) end
  if not queue then return end
  redis.pcall('ZREM', 'rq:wip:' .. queue, id .. ':' .. execution)
  records.forget_execution(id, execution)
  if is_due then return end -- another execution has ended it
  local is_replaced = needs and singletons.was_replaced(id, needs)
  local failure, has_failed = failure_of(id, execution), false
  local may_retry = verdicts.verdict == 'overran' and not is_replaced and verdicts.is_named(execution)
  if may_retry and retrying.fail(id, execution, queue, needs, ending.failure_ttl(id), verdicts.reason) then
    returning.ids[#returning.ids + 1] = id
  elseif not is_over(id, execution) and not is_replaced then
    returning.to_front(id, queue, verdicts.verdict, false, needs)
  else
    has_failed = verdicts.verdict ~= 'stopped' and not is_replaced
    fail(id, execution, queue, not has_failed)
  end
  if failure then errors.count(failure, id, queue, verdicts.reason, has_failed) end
end

-- A job that waited for the worker goes back.
function verdicts.return_waiting(id)
  local queue, is_due = returning.queue_of(id)
  if queue then returning.to_front(id, queue, nil, is_due) end
end

return verdicts
