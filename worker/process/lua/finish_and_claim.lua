-- Acknowledge the outcomes of one claim and claim the next jobs, in one atomic step.
-- requires: claiming, coordination/redis/clock, finishing, jobs/caller, jobs/counting, jobs/events
-- requires: jobs/gathered, jobs/guarded, this_claim
-- may use: acknowledge, examining, jobs/batches, jobs/groups, jobs/hosts, outcomes, pausing, serving, statistics, worker/renewal
--
-- KEYS[1]  the worker's claims: a hash of job id to execution id, beside fields that begin with a dot, such as the mark
-- KEYS[2]  the worker's waiting list: ids that a blocking move brought here
-- KEYS[3]  the worker's RQ hash    KEYS[4]  the leases    KEYS[5]  rq:suspended
-- KEYS[6+] the queues' lists, in the order in which they are served, each with its bands (jobs/lua/lib/bands.lua)
-- ARGV[1]  msgpack: [mark, claim id, last claim id or "", jobs wanted, worker, now as RQ's text, the lease in
--          seconds, whether to renew it, [outcome, ...], rows, the worker's host]
--          the mark is a field of the claims that names the newest claim: the last, or this one if it is sent again.
--          If it names neither, the server has lost history. Claims behind blocking moves have marks of their own
--          an outcome is worker/process/outcome.py's, and its status is the job's next one
--          rows are those of jobs that finished and need nothing else, which are kept for a minute or more, in one list:
--          id, execution id, queue, ttl, started and ended as RQ's texts, both in Unix seconds as text, value,
--          whether the job may be marked as started, both in Unix seconds as numbers, batch or ""; then the next row
-- ARGV[2]  statistics of these outcomes and earlier ones (lib/statistics.lua), counted if no outcome is stale; or ""
-- ARGV[3+] entries of the index for ended jobs: state, number of jobs, packed (jobs/index.lua); then the next
-- Returns  one list: 1 while all workers are suspended; seconds, as text, until a blocked group goes on, if this worker
--          is to look then ("0": at once, behind ids that may not run); 1 if RQ no longer knows the worker, asked when
--          its lease is renewed; 1 if the server lost history; three lists, each of which may be nothing: ids of stale
--          outcomes, ids with dependents to enqueue and, as lists of one, flows to go on with, its paused queues; and
--          then the values of each job
--          a job is id, execution id, origin, data, timeout, rare fields or nothing, enqueued_at, due
--          the rare fields are names and values in turn (lib/examining.lua), expires_at and unknown_since in seconds
--          from now
--          due is nothing, or what callbacks.row returns for a job whose callback is due
--
-- A claim takes an id off its list and enters it in the claims with its execution, <claim id>-<number>. The record says
-- queued until the pool marks it as started. An id that a limit or a paused batch keeps from running waits in a list of
-- theirs instead. If the job was deleted or has ended, the id is dropped.
-- An outcome counts only while the claims name its execution: a worker whose jobs were rescued changes nothing. The
-- outcome takes the id out of the claims. A returned job goes to the front of its queue, one that runs again at once to
-- the end unless it says front. A scheduled job waits in rq:scheduled:<queue>. An ended one goes to a registry of RQ's.
-- A call that is sent again after a lost reply finds its own claim id in the mark. It returns the jobs whose executions
-- begin with that id. Its outcomes don't count twice, since the claims no longer name them.

local claims, waiting, hash, leases, suspended, lists = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], {unpack(KEYS, 6)}
local request, counts, entries = ARGV[1], ARGV[2], {unpack(ARGV, 3)}
local mark, claim_id, last_id, want, worker, now_text, lease, is_due, ended, rows, host = unpack(cmsgpack.unpack(request))
local call, now = guarded.call, clock.now
caller.at, caller.worker, caller.host = now_text, worker, host

-- A call is plain if no key asks for more: a pause, a blocked group, priorities, hosts' slots, dependents, canceled jobs.
local STATES = 8
local unusual = {suspended, 'pm:paused', 'pm:due', 'pm:queue-rates', 'pm:batches-paused', 'pm:bands', 'pm:quiet', 'pm:hosted'}
local ids, ended_in = finishing.subjects(ended, rows, unusual)
local held = call('HMGET', claims, mark, unpack(ids))
local again = held[1] == claim_id
local has_lost = last_id ~= '' and held[1] ~= last_id and not again and 1 or 0

local is_plain = redis.call('EXISTS', unpack(unusual)) == 0
local has_dependents, canceled, is_suspended, paused, looked_at = false, {}, 0, {}, {}
if not is_plain then
  has_dependents, canceled = acknowledge.look(ids, ended_in)
  is_plain = redis.call('EXISTS', unpack(unusual, 1, STATES)) == 0
  if not is_plain then
    local count = redis.call('EXISTS', suspended, suspended, 'pm:hosted') -- a key counts as often as it is named
    is_suspended, this_claim.has_hosts = math.floor(count / 2), count % 2 == 1
    paused, looked_at = pausing.look(lists, waiting, hash)
  end
end
if has_dependents or next(canceled) then rows = acknowledge.append(rows, ended) end

-- The first write is one that a full memory refuses, so nothing leaves a list unless all can be written.
if want + #ids + #counts + #entries > 0 then redis.call('HSET', claims, mark, claim_id) end

local stale, parents, is_forgotten, soonest = {}, {}, 0, math.huge
this_claim.claims, this_claim.holder, this_claim.id = claims, worker .. ' ' .. claim_id .. '-', claim_id
this_claim.again, this_claim.is_plain, this_claim.want, this_claim.looks = again, is_plain, want, 4 * want + 64

if is_due then
  renewal.renew(leases, now + lease, {worker})
  is_forgotten = redis.pcall('HEXISTS', hash, 'birth') == 1 and 0 or 1
end
if #rows > 0 then finishing.all(rows, claims, held, #ended + 1, again, stale) end
if #ended > 0 then acknowledge.all(ended, claims, held, again, has_dependents, canceled, stale, parents) end
gathered.write()
if finishing.counted[1] or next(counting.noted) then batches.count_noted(finishing.counted) end
if #ended > 0 then
  this_claim.has_blocked = outcomes.has_blocked
  for _, id in ipairs(outcomes.due) do claiming.claim(id) end
end
if counts ~= '' and not again and #stale == 0 then statistics.count(counts, hash, worker, now) end
for i = 1, #entries, 3 do
  call('XADD', 'pm:index:' .. entries[i], 'MAXLEN', '~', 1000000, '*', 'n', entries[i + 1], 'e', entries[i + 2])
end
if again then
  examining.take_again(claims, claim_id)
elseif want > 0 and is_suspended == 0 and is_plain then
  claiming.from(waiting)
  for _, list in ipairs(lists) do claiming.from(list) end
elseif want > 0 and is_suspended == 0 then
  soonest = serving.claim(lists, waiting, looked_at, paused)
end
if next(counting.noted) then batches.count_noted() end -- corrupt jobs
for flow in pairs(counting.unfinished) do parents[#parents + 1] = {flow} end
local count, reply = this_claim.count, this_claim.reply
-- A worker that died before this call arrived, and that others have rescued from, is rescued from again.
if count > 0 and not is_due then call('ZADD', leases, 'NX', now + lease, worker) end
gathered.write()
events.write()
local waits = want > 0 and count == 0
if this_claim.has_hosts and want > 0 then hosts.note_idle(waits and #lists > 0 and #paused < #looked_at) end
if waits and (this_claim.has_blocked or not is_plain) then reply[2] = groups.next_due(now, worker, soonest) end
if waits and this_claim.looks <= 0 then reply[2] = '0' end -- others may be behind these
reply[1], reply[3], reply[4] = is_suspended, is_forgotten, has_lost
reply[5], reply[6], reply[7] = #stale > 0 and stale, #parents > 0 and parents, #paused > 0 and paused
return reply
