-- Store a schedule, or change the one of that name and owner; ticks before now are not enqueued.
--
-- KEYS[1]  the schedules    KEYS[2]  this one's state    KEYS[3]  the schedules by their next tick
-- ARGV[1]  its name    ARGV[2]  its record    ARGV[3]  its owner    ARGV[4]  "1" if it starts paused
-- ARGV[5]  "1" to change an existing one
-- Returns  "new", "changed", "same", "exists" if it may not be changed, or the owner to whom the name belongs

local name, record = ARGV[1], ARGV[2]
local old = call('HGET', KEYS[1], name)
local is_removed = call('HGET', KEYS[2], 'removed')

if old == record then
  return 'same'
end
local is_json, found = pcall(cjson.decode, old or '{}')
found = is_json and type(found) == 'table' and found or {owner = ARGV[3]}
if old then
  local owner = found.owner or 'operator' -- the record omits its default
  if owner ~= ARGV[3] and not (is_removed and ARGV[3] == 'operator') then
    return owner
  end
  if ARGV[5] ~= '1' and not is_removed then
    return 'exists'
  end
end

local seconds = script_began[1]
local last = tonumber(redis.call('HGET', KEYS[2], 'last')) or 0
redis.call('HSET', KEYS[1], name, record)
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', math.max(last, seconds)))
redis.call('HDEL', KEYS[2], 'ended', 'held', 'fault')
redis.call('PERSIST', KEYS[2])
-- A definition's `paused` counts when it changes, and never against what an operator decided.
if ARGV[4] == '1' and found.paused ~= true then
  redis.call('HSETNX', KEYS[2], 'paused', 'defined')
elseif ARGV[4] == '0' and redis.call('HGET', KEYS[2], 'paused') == 'defined' then
  redis.call('HDEL', KEYS[2], 'paused')
end
if is_removed and ARGV[3] == 'operator' then
  redis.call('HDEL', KEYS[2], 'removed')
  redis.call('HSET', KEYS[2], 'shadows', '1')
end
-- The leader finds it due and computes its next tick.
if redis.call('HEXISTS', KEYS[2], 'paused') + redis.call('HEXISTS', KEYS[2], 'removed') > 0 then
  call('ZREM', KEYS[3], name)
else
  call('ZADD', KEYS[3], seconds, name)
  redis.pcall('PUBLISH', 'pm:scheduler', '0')
end
write_events()
return old and 'changed' or 'new'
