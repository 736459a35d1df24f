-- Take a slot from the job that holds it, and unblock the next group that waits for one.
-- requires: guarded
-- may use: limits
--
-- KEYS[1]  the holders of the slots
-- ARGV[1]  the key of the slots    ARGV[2]  the job
-- ARGV[3]  1 to take it even if its worker still claims the job
-- Returns  "" if the job holds no slot, "alive" if it keeps it, otherwise "released"; and its worker

local holders = KEYS[1]
local key, id, is_forced = ARGV[1], ARGV[2], ARGV[3] == '1'

local holder = guarded.call('HGET', holders, id)
if not holder then
  return {'', ''}
end
local worker, execution = holder:match('^(.*) ([^ ]*)$')
local is_alive = worker and redis.pcall('HGET', 'pm:claims:' .. worker, id) == execution
if is_alive and not is_forced then
  return {'alive', worker}
end
local cost = redis.call('EXISTS', 'pm:weights:' .. key) == 1 and 1 or nil
limits.release(cjson.encode({{'slots', key, 1, cost}}), id, false)
return {'released', worker or ''}
