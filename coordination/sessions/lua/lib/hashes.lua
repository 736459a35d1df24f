-- Hashes whose key may hold another type: that counts as none.

local hashes = {}

-- The values of the fields, false or nothing for one that is not there.
function hashes.read(key, ...)
  local values = redis.pcall('HMGET', key, ...)
  return values.err and {} or values
end

-- How many fields there are.
function hashes.count(key)
  local count = redis.pcall('HLEN', key)
  return type(count) == 'number' and count or 0
end

-- Write fields, each followed by its value, whatever else the key held.
function hashes.write(key, ...)
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', key) end
  redis.call('HSET', key, ...)
end

return hashes
