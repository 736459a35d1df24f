-- Enqueue dependents of a job that has ended, as far as all of their dependencies are met. One by one: what is wrong
-- with one of them is noted, and keeps no other from its queue.
-- requires: jobs/caller, jobs/events, jobs/guarded, jobs/records
-- may use: jobs/batches, jobs/corrupt, jobs/deferring
--
-- KEYS[1]  the set of its dependents    KEYS[2]  the ended jobs whose dependents are still to be enqueued
-- ARGV[1]  the job    ARGV[2]  now as RQ's text    ARGV[3]  1 if these are the last of its dependents
-- ARGV[4]  a cursor among the dependencies of the first of these, "0" at first    ARGV[5+] ids of dependents
-- Returns  how many of these were looked at: fewer than all if that takes long; how many were enqueued; and the next
--          cursor, "0" unless a look at one with very many dependencies goes on
--
-- A dependency is met once it has finished. If the dependent allows failures, it is also met by one that failed, was
-- stopped, or was canceled while it ran. A dependency without a record has finished, with a result TTL of 0.

local dependents, parents = KEYS[1], KEYS[2]
local parent, now_text, is_last, cursor, ids = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4], {unpack(ARGV, 5)}

local MOST_LOOKS, DEPENDENCIES_A_LOOK = 1000, 100

local ENOUGH = {finished = true}
local ENOUGH_IF_ALLOWED = {finished = true, failed = true, stopped = true, canceled = true}

caller.at = now_text
local looks, enqueued = 0, 0

local statuses = {}
local function status_of(id)
  looks = looks + 1
  statuses[id] = statuses[id] or records.get(id, 'status') or 'finished'
  return statuses[id]
end

-- Whether its dependencies from a cursor on are met, as far as this call looks. RQ has two colons in their key.
local function is_met(id, allows_failures, from)
  local enough = allows_failures and ENOUGH_IF_ALLOWED or ENOUGH
  if not enough[status_of(parent)] then return false end
  local key, found = 'rq:job::' .. id .. ':dependencies', nil
  repeat
    from, found = unpack(guarded.call('SSCAN', key, from, 'COUNT', DEPENDENCIES_A_LOOK))
    for _, dependency in ipairs(found) do
      if not enough[status_of(dependency)] then return false end
    end
  until from == '0' or looks > MOST_LOOKS
  cursor = from
  return from == '0'
end

local function enqueue(id)
  local fields = deferring.find(id)
  if not fields then return end
  deferring.enqueue(id, fields)
  deferring.push()
  enqueued = enqueued + 1
end

-- Look at one dependent. Whether it needs no further look.
local function look(id, from)
  looks = looks + 1
  local fields = records.read(id, 'status', 'origin', 'allow_dependency_failures')
  local status, queue, allows_failures = unpack(fields)
  if fields.err or (status and not queue) then
    corrupt.set_aside(id, fields.err or 'the record names no queue')
    return true
  elseif status ~= 'deferred' then
    return status ~= 'canceled' -- for a canceled one somebody else decides
  elseif not is_met(id, allows_failures == '1', from) then
    return false
  end
  enqueue(id)
  return true
end

local looked_at = 0
for _, id in ipairs(ids) do
  if looks > MOST_LOOKS then break end
  local from = cursor
  cursor = '0'
  if look(id, from) then guarded.call('SREM', dependents, id) end
  if cursor ~= '0' then break end
  looked_at = looked_at + 1
end
if is_last and looked_at == #ids then
  guarded.call('SCARD', dependents) -- which sets aside a key of another type
  guarded.call('ZREM', parents, parent)
end
batches.count_noted()
events.write()
return {looked_at, enqueued, cursor}
