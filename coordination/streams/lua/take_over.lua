-- Give a consumer the entries of dead consumers of its group, and remove gone consumers that hold nothing.
--
-- KEYS[1]  the stream
-- ARGV[1]  the group    ARGV[2]  the consumer    ARGV[3]  idle milliseconds after which an entry is taken over
-- ARGV[4]  where the last scan ended, "0-0" at first
-- ARGV[5]  milliseconds after which a consumer is gone
-- Returns  where this scan ended
--
-- Scan and removal are one step: a consumer that reads in between would lose what it read. Entries keep their count
-- of deliveries, because a takeover is not a delivery.

local key = KEYS[1]
local group, consumer, idle_ms, cursor, gone_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local claimed = redis.call('XAUTOCLAIM', key, group, consumer, idle_ms, cursor, 'COUNT', 100, 'JUSTID')

for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
  local other = {}
  for i = 1, #flat, 2 do
    other[flat[i]] = flat[i + 1]
  end
  if other.pending == 0 and other.idle > gone_ms then
    redis.call('XGROUP', 'DELCONSUMER', key, group, other.name)
  end
end
return claimed[1]
