-- Decide a tick, once: a decision made meanwhile, or by a later leader, stays. The tick's job, if it has one, is
-- enqueued in the same step.
-- requires: jobs/enqueueing, jobs/events, jobs/guarded, scheduler/fence
--
-- KEYS[1]  the places of unique jobs    KEYS[2]  the schedules    KEYS[3]  this one's state
-- KEYS[4]  the schedules by their next tick    KEYS[5]  its ledger
-- ARGV[1], ARGV[2] are those of enqueue.lua: a list of one job or none, and its payload
-- ARGV[3]  the schedule         ARGV[4]  SHA-1 of the record that was read    ARGV[5]  the last tick that was read
-- ARGV[6]  its last tick now    ARGV[7]  when it is due next, "" for never
-- ARGV[8]  the ledger's new entry, or ""    ARGV[9]  the tick's job, or ""    ARGV[10]  the tick that waits, or ""
-- ARGV[11] the schedule's fault, or ""    ARGV[12]  the leader's term    ARGV[13]  entries that the ledger keeps
-- Returns  "not leading" if another leads, "changed" if it is not as it was read; otherwise what enqueue.lua returns

local places, schedules, state, by_next_tick, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local jobs, payloads = ARGV[1], ARGV
local name, read_sha, read_last, last, due, entry, job, held, fault, term, kept = unpack(ARGV, 3)

local call = guarded.call

local function refusal()
  if not fence.leads(term) then return 'not leading' end
  local record = call('HGET', schedules, name)
  local before, paused, removed = unpack(call('HMGET', state, 'last', 'paused', 'removed'))
  local is_as_read = record and redis.sha1hex(record) == read_sha and (before or '') == read_last
  if not is_as_read or paused or removed then return 'changed' end
end

local refused = refusal()
if refused then
  events.write()
  return refused
end

redis.call('HSET', state, 'last', last)
for field, value in pairs({held = held, fault = fault, ended = due == '' and '1' or ''}) do
  if value == '' then
    redis.call('HDEL', state, field)
  else
    redis.call('HSET', state, field, value)
  end
end
if job ~= '' then
  redis.call('HSET', state, 'job', job)
end
if due == '' then
  call('ZREM', by_next_tick, name)
else
  call('ZADD', by_next_tick, due, name)
end
if entry ~= '' then
  call('RPUSH', ledger, entry)
  redis.call('LTRIM', ledger, -tonumber(kept), -1)
end
return enqueueing.all(places, jobs, payloads)
