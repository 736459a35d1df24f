-- Read the schedules that are due, the longest due first.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded, jobs/records
--
-- KEYS[1]  the schedules by their next tick    KEYS[2]  the schedules
-- ARGV[1]  at most how many    ARGV[2]  seconds by which the clock is ahead, 0 except in tests
-- Returns  now, the time at which the next one is due or "", and for each due one
--          [name, record, last, held, last job, that job's status or ""]

local by_next_tick, schedules = KEYS[1], KEYS[2]
local most, ahead = ARGV[1], ARGV[2]

local call = guarded.call
local now = clock.now + ahead
local found = {}

for _, name in ipairs(call('ZRANGEBYSCORE', by_next_tick, '-inf', string.format('%.6f', now), 'LIMIT', 0, most)) do
  local record = call('HGET', schedules, name)
  local state = 'pm:schedule:' .. name
  local last, held, job, paused, removed = unpack(
    call('HMGET', state, 'last', 'held', 'job', 'paused', 'removed')
  )
  if not record or paused or removed then
    redis.call('ZREM', by_next_tick, name)
  else
    local status = job and records.get(job, 'status')
    found[#found + 1] = {
      name, record, last or '', held or '', job or '', status or '',
    }
  end
end

local after = string.format('(%.6f', now)
local nearest = redis.call('ZRANGEBYSCORE', by_next_tick, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
events.write()
return {string.format('%.6f', now), nearest or '', unpack(found)}
