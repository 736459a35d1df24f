-- Scan some keys for what a crash, a lost key or a deletion by hand left behind, and repair it: claims of workers
-- without a lease, slots whose holder is gone, groups without a head, steps and words of jobs that are gone, and records of
-- workers without an expiry, because a killed worker's last write may arrive after its record was deleted.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded, jobs/records, scheduler/fence
-- may use: jobs/belongings, jobs/groups, jobs/steps, jobs/weights
--
-- KEYS[1]  the leases
-- ARGV[1]  a cursor, "0" at first    ARGV[2]  about how many keys to scan    ARGV[3]  the leader's term, or ""
-- ARGV[4]  seconds of the lease that a worker without one gets; if it does not renew it, it is dead
-- ARGV[5]  seconds after which RQ forgets a worker; a living one renews it
-- Returns  the next cursor, "0" after the last, and how many were repaired; "not leading" if another leads

local leases = KEYS[1]
local cursor, keys_to_scan, term, lease_seconds, worker_ttl = unpack(ARGV)

local call = guarded.call
if not fence.admits(term) then return 'not leading' end

local FIELDS = 100 -- that a call checks of one key
local left = 1000 -- fields that this call may still check; the next round checks others
local repaired = 0
local repair = {}

-- Rescue looks only at leases. A living worker renews this one before it ends.
local function lease(worker)
  repaired = repaired + call('ZADD', leases, 'NX', clock.now + lease_seconds, worker)
end

repair['pm:claims:'] = lease
repair['pm:waiting:'] = lease

repair['pm:holders:'] = function(key)
  local holders, is_weighted = 'pm:holders:' .. key, redis.call('EXISTS', 'pm:weights:' .. key) == 1
  local found = call('HRANDFIELD', holders, math.min(FIELDS, left), 'WITHVALUES')
  left = left - #found / 2
  for i = 1, #found, 2 do
    local worker, execution = found[i + 1]:match('^(.*) ([^ ]*)$')
    if not worker or redis.pcall('HGET', 'pm:claims:' .. worker, found[i]) ~= execution then
      repaired = repaired + call('HDEL', holders, found[i])
      if is_weighted then weights.drop(key, found[i]) end
      local line = key:match('^(.*)@') or key
      if is_weighted or line ~= key then weights.unblock_next(line) end
      if not is_weighted then groups.unblock_next(key) end
    end
  end
end

repair['pm:weights:'] = function(key) weights.recount(key) end

-- The key's name is ambiguous, because queue and group may contain colons: a job's record says which is which.
repair['pm:group:'] = function(name)
  local first
  for _ = 1, FIELDS do -- skip jobs without a record
    first = call('LINDEX', 'pm:group:' .. name, 0)
    if not first or records.exists(first) then break end
    call('LPOP', 'pm:group:' .. name)
  end
  local queue, group = unpack(first and records.read(first, 'origin', 'group') or {})
  if not queue or not group or queue .. ':' .. group ~= name then return end
  if call('HSETNX', 'pm:groups:' .. queue, group, '') == 1 then
    repaired = repaired + 1
    groups.unblock(queue .. '\n' .. group)
  end
end

repair['rq:worker:'] = function(worker)
  local record = 'rq:worker:' .. worker
  if redis.call('TTL', record) == -1 then repaired = repaired + call('EXPIRE', record, worker_ttl) end
end

repair['pm:steps:'] = function(id)
  if not records.exists(id) then repaired = repaired + redis.call('UNLINK', steps.key(id)) end
end

local function forget(id)
  if not records.exists(id) then repaired = repaired + redis.call('UNLINK', belongings.of(id)) end
end

repair['pm:log:'] = forget
repair['pm:output:'] = forget

local found = redis.call('SCAN', cursor, 'MATCH', '[pr][mq]:[cwhgslo]*', 'COUNT', keys_to_scan)
for _, key in ipairs(found[2]) do
  local kind, name = key:match('^(%l%l:%l+:)(.*)$')
  if repair[kind] then repair[kind](name) end
end
events.write()
return {found[1], repaired}
