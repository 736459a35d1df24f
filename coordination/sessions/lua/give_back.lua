-- Take an attempt back that turned out to be right, under several keys. Whatever was wrong before it stays counted.
-- requires: hashes
--
-- KEYS[1], KEYS[#]  as of attempt.lua
-- ARGV[1]  how many attempts to take back
-- Returns  1

local keys = {unpack(KEYS)}
local count = tonumber(ARGV[1])

for _, key in ipairs(keys) do
  local n = tonumber(hashes.read(key, 'n')[1])
  -- It was allowed, so no wait from before it was left.
  if n then redis.call('HSET', key, 'n', math.max(n - count, 0), 'until', '0') end
end
return 1
