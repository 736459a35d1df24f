-- Renew the leases of living workers.
--
-- KEYS[1]  the leases    ARGV[1]  the lease in seconds    ARGV[2+]  the workers
-- Returns  how many leases go on

local time = redis.call('TIME')
local found = redis.call('TYPE', KEYS[1]).ok
if found ~= 'zset' and found ~= 'none' then
  redis.call('RENAME', KEYS[1], 'pm:broken:' .. KEYS[1]) -- a corrupt key may stop no heartbeat
end
local ends = time[1] + time[2] / 1000000 + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
end
return #ARGV - 1
