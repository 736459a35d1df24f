-- Unique jobs: each of their keys has a place, which a job holds. enqueue.lua describes the rules.
-- requires: coordination/redis/clock, guarded, records
--
-- pm:unique  a hash of key to "<job id> <Unix time until which it is held, or 0>"

local uniqueness = {}

local now = clock.now

-- The job that took a place, and the time until which it holds it in any case.
local function parse(entry)
  local id, till = (entry or ''):match('^(%S+) (%S+)$')
  return id, tonumber(till) or 0
end

-- The job that holds the place `key`; for a debounced job also its queue, and since when it has waited.
function uniqueness.holder(places, key, rule)
  local id, till = parse(guarded.call('HGET', places, key))
  if not id then
    return
  end
  local found = records.read(id, 'unique', 'status', 'origin', 'enqueued_at', 'debounced_since')
  local owner, status, queue, enqueued, since = unpack(found)
  local is_there = owner == key
  -- A record without data or a queue is set aside sooner or later, whatever its status.
  local is_alive = is_there and records.is_pending(status) and queue
    and redis.call('HEXISTS', records.key(id), 'data') == 1
  if rule == 'debounce' then
    if is_alive and status == 'scheduled' and not enqueued then
      return id, queue, tonumber(since)
    end
  elseif till == 0 then
    return is_alive and id
  elseif now < till then
    local has_failed = found.err or is_there and not is_alive and status ~= 'finished'
    return (rule == 'throttle' or not has_failed) and id
  end
end

-- A job is deleted or canceled: it gives up its place, whatever time that was to be held.
function uniqueness.leave(id)
  local key = records.get(id, 'unique')
  if key and parse(guarded.call('HGET', 'pm:unique', key)) == id then redis.call('HDEL', 'pm:unique', key) end
end

local taken = 0

-- Give a job the place, whose holder was asked before.
function uniqueness.take(places, key, id, rule, seconds)
  local till = (rule == 'ttl' or rule == 'throttle') and now + seconds or 0
  redis.call('HSET', places, key, string.format('%s %.6f', id, till))
  taken = taken + 1
end

-- Nothing reports here that a job has ended. So each place that is taken pays for a look at two others, which are given
-- up if their job has left no record: there are about twice as many places as records at most.
function uniqueness.give_up_others(places)
  local some = redis.call('HRANDFIELD', places, 2 * taken, 'WITHVALUES')
  for i = 1, #some, 2 do
    local id, till = parse(some[i + 1])
    if not id or now >= till and records.get(id, 'unique') ~= some[i] then
      redis.call('HDEL', places, some[i])
    end
  end
end

return uniqueness
