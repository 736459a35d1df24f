-- Decide a tick, once: a decision made meanwhile, or by a later leader, stays. Put in front of enqueue.lua, which
-- enqueues the tick's job, if it has one, in the same step.
--
-- KEYS[1], KEYS[2], ARGV[1] and ARGV[2] are those of enqueue.lua: a list of one job or none, and its payload
-- KEYS[3]  the schedules        KEYS[4]  this one's state    KEYS[5]  the schedules by their next tick
-- KEYS[6]  its ledger
-- ARGV[3]  the schedule         ARGV[4]  SHA-1 of the record that was read    ARGV[5]  the last tick that was read
-- ARGV[6]  its last tick now      ARGV[7]  when it is due next, "" for never
-- ARGV[8]  the ledger's new entry, or ""    ARGV[9]  the tick's job, or ""    ARGV[10]  the tick that waits, or ""
-- ARGV[11] the schedule's fault, or ""    ARGV[12]  the leader's term    ARGV[13]  entries that the ledger keeps
-- Returns  "not leading" if another leads, "changed" if it is not as it was read; otherwise what enqueue.lua returns

local function refusal()
  if not leads(ARGV[12]) then return 'not leading' end
  local record = call('HGET', KEYS[3], ARGV[3])
  local state = call('HMGET', KEYS[4], 'last', 'paused', 'removed')
  local is_as_read = record and redis.sha1hex(record) == ARGV[4] and (state[1] or '') == ARGV[5]
  local last = tonumber(state[1]) or 0
  local goes_back = tonumber(ARGV[6]) < last and last < 253000000000 -- a larger number is no time
  if not is_as_read or goes_back or state[2] or state[3] then return 'changed' end
end

local refused = refusal()
if refused then
  write_events()
  return refused
end

redis.call('HSET', KEYS[4], 'last', ARGV[6])
for field, value in pairs({held = ARGV[10], fault = ARGV[11], ended = ARGV[7] == '' and '1' or ''}) do
  if value == '' then
    redis.call('HDEL', KEYS[4], field)
  else
    redis.call('HSET', KEYS[4], field, value)
  end
end
if ARGV[9] ~= '' then
  redis.call('HSET', KEYS[4], 'job', ARGV[9])
end
if ARGV[7] == '' then
  call('ZREM', KEYS[5], ARGV[3])
else
  call('ZADD', KEYS[5], ARGV[7], ARGV[3])
end
if ARGV[8] ~= '' then
  call('RPUSH', KEYS[6], ARGV[8])
  redis.call('LTRIM', KEYS[6], -tonumber(ARGV[13]), -1)
end

