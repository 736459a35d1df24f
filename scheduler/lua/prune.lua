-- Forget what is over in one queue: ids of ended jobs whose time to live is over, and of canceled ones that left no
-- record.
--
-- KEYS[1]  finished jobs    KEYS[2]  failed jobs    KEYS[3]  canceled jobs, all of one queue
-- ARGV[1]  at most how many of each    ARGV[2]  where to go on among the canceled, "0" at first
-- ARGV[3]  the leader's term, or ""
-- Returns  how many were forgotten, and where to go on, "0" after the last; "overtaken" if another leads

if ARGV[3] ~= '' and is_overtaken(ARGV[3]) then return 'overtaken' end

local forgotten = 0
for i = 1, 2 do
  local ids = call('ZRANGEBYSCORE', KEYS[i], '-inf', told_at, 'LIMIT', 0, ARGV[1])
  if #ids > 0 then forgotten = forgotten + call('ZREM', KEYS[i], unpack(ids)) end
end

local found = call('ZSCAN', KEYS[3], ARGV[2], 'COUNT', ARGV[1])
for i = 1, #found[2], 2 do
  if redis.call('EXISTS', 'rq:job:' .. found[2][i]) == 0 then
    forgotten = forgotten + call('ZREM', KEYS[3], found[2][i])
  end
end
return {forgotten, found[1]}
