-- The counter of a lock's holders, whose count is this node's fencing token. Put in front of the scripts of locks.

local TOO_MANY = 2 ^ 53 -- from here on a number in Lua isn't exact

-- The lock's holder; false if there is none. A lock has an end, so what lies in its place without one is garbage.
local function holder(key)
  local value = redis.pcall('GET', key)
  if redis.call('PTTL', key) == -1 then
    redis.call('DEL', key)
    return false
  end
  return type(value) == 'string' and value
end

-- The count; 0 if there is none, or if what is there is no token.
local function count(key)
  local text = redis.pcall('GET', key)
  local number = type(text) == 'string' and tonumber(text:match('^%d+$')) or 0
  return number < TOO_MANY - 1 and number or 0
end

