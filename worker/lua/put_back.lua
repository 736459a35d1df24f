-- Put an id that a blocking move brought too late back to the front of its queue, unless it was claimed meanwhile.
--
-- KEYS[1]  the worker's waiting list    KEYS[2]  the queue's list    ARGV[1]  the id
-- Returns  1 if it went back, 0 if it was claimed

if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
