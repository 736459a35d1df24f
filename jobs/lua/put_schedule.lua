-- Store a schedule, or change the one of that name and owner; ticks before now are not enqueued.
-- requires: coordination/redis/clock, events, guarded
--
-- KEYS[1]  the schedules    KEYS[2]  this one's state    KEYS[3]  the schedules by their next tick
-- ARGV[1]  its name    ARGV[2]  its record    ARGV[3]  its owner    ARGV[4]  "1" if it starts paused
-- ARGV[5]  "1" to change an existing one
-- Returns  "new", "changed", "same", "exists" if it may not be changed, or the owner to whom the name belongs

local schedules, state, by_next_tick = KEYS[1], KEYS[2], KEYS[3]
local name, record, by, starts_paused, may_change = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5] == '1'

local call = guarded.call
local old = call('HGET', schedules, name)
local is_removed = call('HGET', state, 'removed')

if old == record then
  return 'same'
end
local _, found = pcall(cjson.decode, old)
found = type(found) == 'table' and found or {owner = by} -- one that can't be read is anybody's
if old then
  local owner = found.owner or 'operator' -- the record omits its default
  if owner ~= by and not (is_removed and by == 'operator') then
    return owner
  end
  if not may_change and not is_removed then
    return 'exists'
  end
end

local seconds = clock.second
local last = tonumber(redis.call('HGET', state, 'last')) or 0
redis.call('HSET', schedules, name, record)
redis.call('HSET', state, 'last', string.format('%.0f', math.max(last, seconds)))
redis.call('HDEL', state, 'ended', 'held', 'fault')
redis.call('PERSIST', state)
-- A definition's `paused` counts when it changes, and never against what an operator decided.
if starts_paused and found.paused ~= true then
  redis.call('HSETNX', state, 'paused', 'defined')
elseif not starts_paused and redis.call('HGET', state, 'paused') == 'defined' then
  redis.call('HDEL', state, 'paused')
end
if is_removed and by == 'operator' then
  redis.call('HDEL', state, 'removed')
  redis.call('HSET', state, 'shadows', '1')
end
-- The leader finds it due and computes its next tick.
if redis.call('HEXISTS', state, 'paused') + redis.call('HEXISTS', state, 'removed') > 0 then
  call('ZREM', by_next_tick, name)
else
  call('ZADD', by_next_tick, seconds, name)
  redis.pcall('PUBLISH', 'pm:scheduler', '0')
end
events.write()
return old and 'changed' or 'new'
