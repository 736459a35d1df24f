-- Renew the leases of living workers.
--
-- KEYS[1]  the leases    ARGV[1]  the lease in seconds    ARGV[2+]  the workers
-- Returns  how many leases go on

local time = redis.call('TIME')
local ends = time[1] + time[2] / 1000000 + ARGV[1]
for i = 2, #ARGV do
  redis.call('ZADD', KEYS[1], ends, ARGV[i])
end
return #ARGV - 1
