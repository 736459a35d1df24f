-- Write the progress or a checkpoint of a running job, unless the worker has lost its claim.
-- requires: jobs/events, jobs/records
--
-- KEYS[1]  the worker's claims    KEYS[2]  the hash to write to
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  seconds to keep the hash, 0 for the record that is there
-- ARGV[4+] fields and values in turn
-- Returns  1 if it was written, 0 if not

local claims, hash = KEYS[1], KEYS[2]
local id, execution, ttl, fields = ARGV[1], ARGV[2], tonumber(ARGV[3]), {unpack(ARGV, 4)}

if redis.call('HGET', claims, id) ~= execution or (ttl == 0 and redis.call('EXISTS', hash) == 0) then
  return 0
end

-- Progress is emitted at each tenth of the way, so that it does not drown other events.
local function tenth(done, total)
  done, total = tonumber(done), tonumber(total)
  return done and total and total > 0 and math.floor(10 * done / total) or 0
end

local before = ttl > 0 and redis.call('HMGET', hash, 'done', 'total', 'attempt')
redis.call('HSET', hash, unpack(fields))
if before then
  local after = redis.call('HMGET', hash, 'done', 'total', 'attempt', 'message')
  if tenth(unpack(after)) ~= (after[3] == before[3] and tenth(unpack(before)) or 0) then
    events.emit('progress', id, records.get(id, 'origin') or '', claims:sub(#'pm:claims:' + 1),
      {done = tonumber(after[1]), total = tonumber(after[2]), message = after[4]})
    events.write()
  end
end
if ttl > 0 then
  redis.call('EXPIRE', hash, ttl)
end
return 1
