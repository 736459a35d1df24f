-- Keep a running job's checkpoint, unless the worker has lost its lease on it.
--
-- KEYS[1]  the worker's claims    KEYS[2]  the job's record
-- ARGV[1]  the job    ARGV[2]  its execution    ARGV[3]  the checkpoint
-- Returns  1 if it was kept, 0 if not

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or redis.call('EXISTS', KEYS[2]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], 'checkpoint', ARGV[3])
return 1
