-- Look at some of all keys for what a crash, a lost key or a hand has left behind, and repair it: claims of a worker
-- that has no lease, slots whose holder is gone, jobs of groups that have no head, and workers that RQ would
-- know for ever, for one that was killed can write a field after it has been struck off.
--
-- KEYS[1]  the leases
-- ARGV[1]  where to go on, "0" at first    ARGV[2]  how many keys to look at    ARGV[3]  the leader's term, or ""
-- ARGV[4]  seconds after which a worker without a lease is dead, if it doesn't renew it
-- ARGV[5]  seconds after which RQ forgets a worker; a living one renews it
-- Returns  where to go on, "0" after the last, and how many were repaired; "not leading" if another leads

if ARGV[3] ~= '' and not leads(ARGV[3]) then return 'not leading' end

local FIELDS = 100 -- of one key
local left = 1000 -- fields of all keys that this call looks at; the next round looks at others
local repaired = 0
local repair = {}

-- Rescue looks at leases alone; a living worker will renew it before it ends.
local function lease(worker)
  repaired = repaired + call('ZADD', KEYS[1], 'NX', now + ARGV[4], worker)
end

repair['pm:claims:'] = lease
repair['pm:waiting:'] = lease

repair['pm:holders:'] = function(key)
  local holders = 'pm:holders:' .. key
  local found = left > 0 and call('HRANDFIELD', holders, math.min(FIELDS, left), 'WITHVALUES') or {}
  left = left - #found / 2
  for i = 1, #found, 2 do
    local worker, execution = found[i + 1]:match('^(.*) ([^ ]*)$')
    if not worker or redis.pcall('HGET', 'pm:claims:' .. worker, found[i]) ~= execution then
      repaired = repaired + call('HDEL', holders, found[i])
      groups.unblock_next(key)
    end
  end
end

-- The name alone doesn't tell where the queue ends, for both parts may have colons; the jobs do.
repair['pm:group:'] = function(name)
  local first
  for _ = 1, FIELDS do -- and past those that left no record
    first = call('LINDEX', 'pm:group:' .. name, 0)
    if not first or redis.call('EXISTS', 'rq:job:' .. first) == 1 then break end
    call('LPOP', 'pm:group:' .. name)
  end
  local found = first and redis.pcall('HMGET', 'rq:job:' .. first, 'origin', 'group') or {}
  local queue, group = found[1], found[2]
  if found.err or not queue or not group or queue .. ':' .. group ~= name then return end
  if call('HSETNX', 'pm:groups:' .. queue, group, '') == 1 then
    repaired = repaired + 1
    groups.unblock(queue .. '\n' .. group)
  end
end

repair['rq:worker:'] = function(worker)
  local record = 'rq:worker:' .. worker
  if redis.call('TTL', record) == -1 then repaired = repaired + call('EXPIRE', record, ARGV[5]) end
end

local found = redis.call('SCAN', ARGV[1], 'MATCH', '[pr][mq]:[cwhg]*', 'COUNT', ARGV[2])
for _, key in ipairs(found[2]) do
  local kind, name = key:match('^(%l%l:%l+:)(.*)$')
  if repair[kind] then repair[kind](name) end
end
write_events()
return {found[1], repaired}
