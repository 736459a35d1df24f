-- Mark an error as resolved or ignored, or as open again.
-- requires: events, guarded
--
-- KEYS[1]  the error    KEYS[2]  the errors that are resolved or ignored
-- ARGV[1]  its fingerprint    ARGV[2]  "resolved", "ignored" or "open"
-- Returns  its state before, or "" if there is no such error

local key, settled = KEYS[1], KEYS[2]
local fingerprint, wanted = ARGV[1], ARGV[2]

local last, state = unpack(guarded.call('HMGET', key, 'last', 'state'))
if last then
  redis.call('HSET', key, 'state', wanted)
  if wanted == 'open' then
    guarded.call('ZREM', settled, fingerprint)
  else
    guarded.call('ZADD', settled, tonumber(last) or 0, fingerprint)
  end
end
events.write() -- that a key of another type was set aside
return last and (state or 'open') or ''
