-- Write what a running job says of itself, its progress or a checkpoint, unless the worker has lost its lease on it.
--
-- KEYS[1]  the worker's claims    KEYS[2]  the hash to write to
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  seconds to keep the hash, 0 for the record that is there
-- ARGV[4+] fields and values in turn
-- Returns  1 if it was written, 0 if not

local ttl = tonumber(ARGV[3])
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or (ttl == 0 and redis.call('EXISTS', KEYS[2]) == 0) then
  return 0
end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
if ttl > 0 then
  redis.call('EXPIRE', KEYS[2], ttl)
end
return 1
