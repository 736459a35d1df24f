-- Indexes of what a user has: sorted sets of hashes by their ends in Unix seconds. Entries may be over.
-- requires: coordination/redis/clock

local indexes = {}

-- The first entries, those that end first in front; nothing if the key holds another type.
function indexes.members(index, most)
  local found = redis.pcall('ZRANGE', index, 0, most - 1)
  return found.err and {} or found
end

-- Add an entry, in the place of what else the key may hold. The key lasts as long as its last entry.
function indexes.add(index, hash, ends)
  local kind = redis.call('TYPE', index).ok
  if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', index) end
  redis.call('ZADD', index, ends, hash)
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  redis.call('PEXPIRE', index, math.ceil(math.max(last - clock.now, 1) * 1000))
end

-- Make room for one more entry: remove those that are over, then delete the oldest.
function indexes.make_room(index, prefix, most)
  local members = indexes.members(index, 2 * most)
  local left = #members
  for _, hash in ipairs(members) do
    if redis.call('EXISTS', prefix .. hash) == 0 then
      redis.call('ZREM', index, hash)
      left = left - 1
    end
  end
  for _, hash in ipairs(members) do
    if left < most then break end
    if redis.call('DEL', prefix .. hash) == 1 then
      redis.call('ZREM', index, hash)
      left = left - 1
    end
  end
end

return indexes
