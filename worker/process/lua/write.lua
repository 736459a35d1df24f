-- Write the progress or a checkpoint of a running job, unless the worker has lost its claim.
--
-- KEYS[1]  the worker's claims    KEYS[2]  the hash to write to
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  seconds to keep the hash, 0 for the record that is there
-- ARGV[4+] fields and values in turn
-- Returns  1 if it was written, 0 if not

local ttl = tonumber(ARGV[3])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or (ttl == 0 and redis.call('EXISTS', KEYS[2]) == 0) then
  return 0
end

-- Progress is emitted at each tenth of the way, so that it does not drown other events.
local function tenth(done, total)
  done, total = tonumber(done), tonumber(total)
  return done and total and total > 0 and math.floor(10 * done / total) or 0
end

local before = ttl > 0 and redis.call('HMGET', KEYS[2], 'done', 'total', 'attempt')
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
if before then
  local after = redis.call('HMGET', KEYS[2], 'done', 'total', 'attempt', 'message')
  if tenth(unpack(after)) ~= (after[3] == before[3] and tenth(unpack(before)) or 0) then
    local queue = redis.pcall('HGET', 'rq:job:' .. ARGV[1], 'origin')
    emit('progress', ARGV[1], type(queue) == 'string' and queue or '', KEYS[1]:sub(11),
      {done = tonumber(after[1]), total = tonumber(after[2]), message = after[4]})
    write_events()
  end
end
if ttl > 0 then
  redis.call('EXPIRE', KEYS[2], ttl)
end
return 1
