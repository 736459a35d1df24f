-- Take a slot from the job that holds it, and let the next group that waits for one go on.
--
-- KEYS[1]  the holders of the slots
-- ARGV[1]  what the slots are of    ARGV[2]  the job
-- ARGV[3]  1 to do so although its worker claims the job still
-- Returns  "" if the job holds no slot, "alive" if it keeps it, "released" if not; and its worker

local key, id, is_forced = ARGV[1], ARGV[2], ARGV[3] == '1'

local holder = call('HGET', KEYS[1], id)
if not holder then
  return {'', ''}
end
local worker, execution = holder:match('^(.*) ([^ ]*)$')
local is_alive = worker and redis.pcall('HGET', 'pm:claims:' .. worker, id) == execution
if is_alive and not is_forced then
  return {'alive', worker}
end
limits.release(cjson.encode({{'slots', key, 1}}), id, false)
return {'released', worker or ''}
