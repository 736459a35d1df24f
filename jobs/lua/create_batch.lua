-- Create a batch, and store its callbacks in the same step; the batch enqueues them later.
-- requires: coordination/redis/clock, enqueueing, guarded, memory
-- may use: batch_members
--
-- KEYS[1]  the places of unique jobs    KEYS[2]  the batch    KEYS[3]  all batches
-- ARGV[1]  and those that follow but the last: as enqueue.lua has them
-- ARGV[#]  msgpack: [batch, parent or "", [field, value, ...]]
-- Returns  an error that begins with FULL or, if the parent takes no more jobs, with BATCH; otherwise what enqueue.lua
--          returns

local places, key, all = KEYS[1], KEYS[2], KEYS[3]
local jobs, payloads, packed = ARGV[1], ARGV, ARGV[#ARGV]

local MOST_LISTED = 10000
local batch, parent, fields = unpack(cmsgpack.unpack(packed))

local function parents_refusal()
  local why = batch_members.refusal(parent)
  if not why and redis.call('HGET', 'pm:batch:' .. parent, 'parent') then
    why = 'batch ' .. parent .. ' is in a batch itself, and batches nest no deeper'
  end
  return why
end

local full = memory.refusal()
if full then return full end
if redis.call('EXISTS', key) == 0 then -- otherwise this call is sent again
  local why = parent ~= '' and parents_refusal()
  if why then return redis.error_reply('BATCH ' .. why) end
  redis.call('HSET', key, 'created', string.format('%.6f', clock.now), unpack(fields))
  if parent ~= '' then
    redis.call('HSET', key, 'parent', parent)
    batch_members.add(parent, {'batch:' .. batch})
  end
  guarded.call('ZADD', all, clock.now, batch)
  redis.call('ZREMRANGEBYRANK', all, 0, -MOST_LISTED - 1)
end
return enqueueing.all(places, jobs, payloads)
