-- Ending all that a user has: the instant counts, and what the index names is deleted as well.
-- requires: endings, indexes, hashes, announce

local ending_all = {}

-- End all sessions but that of the hash `kept`, which may be "". Returns how many were there.
function ending_all.sessions(index, ending, prefix, ttl_ms, most, kept)
  local instant = endings.set(ending, ttl_ms)
  local ended = 0
  for _, hash in ipairs(indexes.members(index, most)) do
    if hash ~= kept then
      ended = ended + redis.call('DEL', prefix .. hash)
      redis.call('ZREM', index, hash)
    elseif hashes.read(prefix .. hash, 'by')[1] then
      redis.call('HSET', prefix .. hash, 'after', string.format('%.0f', instant + 1))
    end
  end
  announce.ended(index)
  return ended
end

return ending_all
