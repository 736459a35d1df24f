-- Move jobs that are due from the scheduled to their queue, the longest due first, and let parked groups go on.
--
-- KEYS[1]  the scheduled jobs of one queue    KEYS[2]  that queue's list
-- KEYS[3]  the set of queues                  KEYS[4]  the quarantine
-- ARGV[1]  at most how many                   ARGV[2]  now as RQ's text
-- ARGV[3]  the leader's term, or ""
-- Returns  seconds until the next is due as text, or "" if none is scheduled; "overtaken" if another leads

if ARGV[3] ~= '' and is_overtaken(ARGV[3]) then return 'overtaken' end

local now = script_began[1] + script_began[2] / 1000000

own.at = ARGV[2]

-- A key of another type would stop the promotion of all queues, or swallow the jobs on their way.
for i, right in ipairs({'zset', 'list'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= right and found ~= 'none' then
    set_aside(KEYS[i], 'the key holds a ' .. found .. ' instead of a ' .. right)
    redis.call('RENAME', KEYS[i], 'pm:broken:' .. KEYS[i])
  end
end

local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[1])
local promoted = 0

for _, id in ipairs(ids) do
  local record = 'rq:job:' .. id
  local fields = redis.pcall('HMGET', record, 'data', 'enqueue_at_front', 'group')
  redis.call('ZREM', KEYS[1], id)
  if fields.err or not fields[1] then
    -- A record that expired while it waited is no loss; one that is no job is kept for inspection.
    if fields.err or redis.call('EXISTS', record) == 1 then
      set_aside(id, fields.err or 'the record holds no data')
    end
  else
    redis.call('HSET', record, 'status', 'queued', 'enqueued_at', ARGV[2])
    groups.join(KEYS[2]:sub(10), fields[3], id, fields[2] == '1' and 'LPUSH' or 'RPUSH')
    tell('promoted', id, KEYS[2]:sub(10))
    promoted = promoted + 1
  end
end

if promoted > 0 then
  redis.call('SADD', KEYS[3], KEYS[2])
end
groups.wake_due(now)
write_events()
local nearest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
return nearest and string.format('%.6f', nearest - now) or ''
