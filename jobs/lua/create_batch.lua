-- Create a batch. In front of enqueue.lua, which stores its callbacks in the same step; the batch enqueues them later.
--
-- KEYS[1]  and KEYS[2] are enqueue.lua's, as are its ARGV but the last    KEYS[3]  the batch    KEYS[4]  all batches
-- ARGV[#]  msgpack: [batch, parent or "", [field, value, ...]]
-- Returns  an error that begins with BATCH if the parent takes no more jobs, otherwise what enqueue.lua returns

local MOST_LISTED = 10000
local new_batch, parent, batch_fields = unpack(cmsgpack.unpack(ARGV[#ARGV]))

local function parents_refusal()
  local why = batches.refusal(parent)
  if not why and redis.call('HGET', 'pm:batch:' .. parent, 'parent') then
    why = 'batch ' .. parent .. ' is in a batch itself, and batches nest no deeper'
  end
  return why
end

if redis.call('EXISTS', KEYS[3]) == 0 then -- otherwise this call is sent again
  local why = parent ~= '' and parents_refusal()
  if why then return redis.error_reply('BATCH ' .. why) end
  redis.call('HSET', KEYS[3], 'created', string.format('%.6f', now), unpack(batch_fields))
  if parent ~= '' then
    redis.call('HSET', KEYS[3], 'parent', parent)
    batches.add(parent, {'batch:' .. new_batch})
  end
  call('ZADD', KEYS[4], now, new_batch)
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -MOST_LISTED - 1)
end
