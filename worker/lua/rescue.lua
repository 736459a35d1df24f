-- Return a worker's jobs to the front of the queues that they came from, and end its lease.
-- A worker that stops calls it for itself; a pool calls it for a child that died, or for any worker whose lease has
-- ended. Calling it twice does no harm: the second call finds nothing. A call moves a few jobs: call it again for more.
-- requires: coordination/redis/clock, jobs/caller, jobs/events, jobs/gathered, jobs/guarded, returning
-- requires: verdicts
-- may use: jobs/batches, jobs/scheduled
--
-- KEYS[1]  the worker's claims    KEYS[2]  its waiting list    KEYS[3]  the leases    KEYS[4]  its RQ hash
-- KEYS[5]  the set of workers
-- ARGV[1]  the worker
-- ARGV[2]  verdict: "returned" (a clean stop), "vanished" (its lease ended), "died", "overran" (killed for its job's
--          timeout) or "stopped"
-- ARGV[3]  the executions to which the verdict applies, each followed by a space
-- ARGV[4]  after this many deaths a job fails instead of running again
-- ARGV[5]  the reason, as a result stream keeps it    ARGV[6]  now as RQ's text
-- ARGV[7]  "all"; "expired" to do nothing unless the lease has ended; or "named" for a worker that goes on and
--          loses only the executions of ARGV[3]
-- ARGV[8]  the crash report, or ""
-- Returns  [ids that went back, ids that failed, 1 if there are more], or nothing if the lease has not ended

local claims, waiting, leases, hash, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, verdict, named, deaths, reason, now_text, scope, report = unpack(ARGV)

local JOBS_A_CALL, FIELDS_A_LOOK = 40, 256
local call = guarded.call

if scope == 'expired' then
  local lease = redis.call('ZSCORE', leases, worker)
  if lease and tonumber(lease) > clock.now then
    return false
  end
end

caller.at, caller.worker = now_text, worker
verdicts.verdict, verdicts.named, verdicts.deaths, verdicts.reason, verdicts.report = verdict, named, deaths, reason, report

local function reply(has_more)
  gathered.write()
  scheduled.notify()
  batches.count_noted()
  events.write()
  return {returning.ids, verdicts.failed, has_more and 1 or 0}
end

-- Some of the claimed jobs, each with its execution, in order while they are few.
local cursor, held, seen = '0', {}, {}
repeat
  local found
  cursor, found = unpack(call('HSCAN', claims, cursor, 'COUNT', FIELDS_A_LOOK))
  for i = 1, #found, 2 do
    local id, execution = found[i], found[i + 1]
    if id:sub(1, 1) ~= '.' and not seen[id] and (scope ~= 'named' or verdicts.is_named(execution)) then
      held[#held + 1], seen[id] = {id, execution}, true
    end
  end
until #held >= JOBS_A_CALL or cursor == '0'

-- The last claimed goes back first, so the first claimed ends up in front.
local left = JOBS_A_CALL
while left > 0 and #held > 0 do
  local id, execution = unpack(table.remove(held))
  verdicts.apply(id, execution)
  redis.call('HDEL', claims, id)
  left = left - 1
end
local has_more = left == 0 -- claimed ones, or at least a look at those that wait
if scope == 'named' or has_more then
  return reply(has_more)
end

local ids = call('LRANGE', waiting, -left, -1)
call('LTRIM', waiting, 0, -left - 1)
for i = #ids, 1, -1 do verdicts.return_waiting(ids[i]) end
if call('LLEN', waiting) > 0 then
  return reply(true)
end

redis.call('DEL', claims)
redis.call('ZREM', leases, worker)
if verdict ~= 'returned' or not call('HGET', hash, 'death') then -- it has not signed off itself
  local served = call('HGET', hash, 'queues') or ''
  for queue in served:gmatch('[^,]+') do
    call('SREM', 'rq:workers:' .. queue, hash)
  end
  call('SREM', workers, hash)
  redis.call('DEL', hash)
end
return reply(false)
