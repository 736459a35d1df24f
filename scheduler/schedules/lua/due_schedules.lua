-- Read the schedules that are due, the longest due first.
--
-- KEYS[1]  the schedules by their next tick    KEYS[2]  the schedules
-- ARGV[1]  at most how many    ARGV[2]  seconds by which the clock is ahead, 0 except in tests
-- Returns  now, the time at which the next one is due or "", and for each due one
--          [name, record, last, held, last job, that job's status or ""]

local now = now + ARGV[2]
local found = {}

for _, name in ipairs(call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.6f', now), 'LIMIT', 0, ARGV[1])) do
  local record = call('HGET', KEYS[2], name)
  local state = 'pm:schedule:' .. name
  local last, held, job, paused, removed = unpack(
    call('HMGET', state, 'last', 'held', 'job', 'paused', 'removed')
  )
  if not record or paused or removed then
    redis.call('ZREM', KEYS[1], name)
  else
    local status = job and redis.pcall('HGET', 'rq:job:' .. job, 'status')
    found[#found + 1] = {
      name, record, last or '', held or '', job or '', type(status) == 'string' and status or '',
    }
  end
end

local nearest = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.6f', now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
write_events()
return {string.format('%.6f', now), nearest or '', unpack(found)}
