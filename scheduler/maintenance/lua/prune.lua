-- Remove what has expired in one queue: ids of ended jobs past their time to live, ids of canceled jobs without a
-- record, and workers that are gone.
--
-- KEYS[1]  finished jobs    KEYS[2]  failed jobs    KEYS[3]  canceled jobs    KEYS[4]  workers, all of one queue
-- KEYS[5]  all workers
-- ARGV[1]  at most how many of each    ARGV[2]  a cursor among the canceled jobs, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  how many were removed, and the next cursor, "0" after the last; "not leading" if another leads

if ARGV[3] ~= '' and not leads(ARGV[3]) then return 'not leading' end

local removed = 0

local function remove(command, key, ids)
  if #ids > 0 then removed = removed + call(command, key, unpack(ids)) end
end

local function gone(prefix, found)
  local ids = {}
  for _, id in ipairs(found) do
    if redis.call('EXISTS', prefix .. id) == 0 then ids[#ids + 1] = id end
  end
  return ids
end

for i = 1, 2 do
  remove('ZREM', KEYS[i], call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, ARGV[1]))
end

local found = call('ZSCAN', KEYS[3], ARGV[2], 'COUNT', ARGV[1])
local canceled = {}
for i = 1, #found[2], 2 do canceled[#canceled + 1] = found[2][i] end
remove('ZREM', KEYS[3], gone('rq:job:', canceled))

for i = 4, 5 do
  remove('SREM', KEYS[i], gone('', call('SRANDMEMBER', KEYS[i], ARGV[1]))) -- all, if there are fewer
end
write_events()
return {removed, found[1]}
