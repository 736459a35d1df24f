-- Remove what has expired in one queue: ids of ended jobs past their time to live, ids of canceled jobs without a
-- record, and workers that are gone.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded, jobs/records, scheduler/fence
-- may use: jobs/ending
--
-- KEYS[1]  finished jobs    KEYS[2]  failed jobs    KEYS[3]  canceled jobs    KEYS[4]  workers, all of one queue
-- KEYS[5]  all workers    KEYS[6]  the quiet ones
-- ARGV[1]  at most how many of each    ARGV[2]  a cursor among the canceled jobs, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  how many were removed, and the next cursor, "0" after the last; "not leading" if another leads

local ended, canceled, workers = {KEYS[1], KEYS[2]}, KEYS[3], {KEYS[4], KEYS[5], KEYS[6]}
local most, cursor, term = ARGV[1], ARGV[2], ARGV[3]

local call = guarded.call
if not fence.admits(term) then return 'not leading' end

local removed = 0

local function remove(command, key, ids)
  if #ids > 0 then removed = removed + call(command, key, unpack(ids)) end
end

local function missing(prefix, found)
  local ids = {}
  for _, id in ipairs(found) do
    if redis.call('EXISTS', prefix .. id) == 0 then ids[#ids + 1] = id end
  end
  return ids
end

for _, key in ipairs(ended) do
  remove('ZREM', key, call('ZRANGEBYSCORE', key, '-inf', clock.now, 'LIMIT', 0, most))
end

-- RQ's code keeps the records of the jobs that it cancels for ever.
local found = call('ZSCAN', canceled, cursor, 'COUNT', most)
local ids = {}
for i = 1, #found[2], 2 do
  local id = found[2][i]
  local left = redis.call('TTL', records.key(id))
  if left == -2 then
    ids[#ids + 1] = id
  elseif left == -1 and records.get(id, 'status') == 'canceled' then
    ending.keep_canceled(id)
  end
end
remove('ZREM', canceled, ids)

for _, key in ipairs(workers) do
  remove('SREM', key, missing('', call('SRANDMEMBER', key, most))) -- all, if there are fewer
end
events.write()
return {removed, found[1]}
