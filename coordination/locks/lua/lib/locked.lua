-- A lock's keys on this node: its holder's value, and the counter of its holders, whose count is the node's fencing
-- token. Garbage in either keeps nobody out.

local locked = {}

local TOO_MANY = 2 ^ 53 -- from here on a number in Lua isn't exact

-- The lock's holder; false if there is none. A lock has an end, so what lies in its place without one is garbage.
function locked.by(lock)
  local value = redis.pcall('GET', lock)
  if redis.call('PTTL', lock) == -1 then
    redis.call('DEL', lock)
    return false
  end
  return type(value) == 'string' and value
end

-- The count; 0 if there is none, or if what is there is no token.
function locked.count(counter)
  local text = redis.pcall('GET', counter)
  local number = type(text) == 'string' and tonumber(text:match('^%d+$')) or 0
  return number < TOO_MANY - 1 and number or 0
end

return locked
