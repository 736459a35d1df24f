-- Count an attempt under several keys, unless one of them has to wait.
-- requires: coordination/redis/clock, hashes
--
-- KEYS[1], KEYS[#]  a hash each: n, how many attempts were counted, and until, in Unix seconds, when the next may come
-- ARGV[1], ARGV[#]  for each key in turn: how many are free, seconds to wait after the first beyond, the longest wait,
--          seconds after which all is forgotten
-- Returns  the seconds to wait, as text; "0" if the attempt was counted

local keys, rules = {unpack(KEYS)}, {unpack(ARGV)}

local counted, wait = {}, 0
for i, key in ipairs(keys) do
  local longest = tonumber(rules[4 * i - 1])
  local n, until_ = unpack(hashes.read(key, 'n', 'until'))
  counted[i] = math.min(math.max(tonumber(n) or 0, 0), 1000000)
  -- No wait is longer than the longest, whatever a clock that stepped back or garbage says.
  wait = math.max(wait, math.min((tonumber(until_) or 0) - clock.now, longest))
end
if wait > 0 then return string.format('%.6f', math.max(wait, 0.001)) end
for i, key in ipairs(keys) do
  local free, first = tonumber(rules[4 * i - 3]), tonumber(rules[4 * i - 2])
  local longest, forgotten = tonumber(rules[4 * i - 1]), tonumber(rules[4 * i])
  local n = counted[i] + 1
  local pause = n < free and 0 or math.min(longest, first * 2 ^ math.min(n - free, 40))
  hashes.write(key, 'n', n, 'until', pause > 0 and string.format('%.6f', clock.now + pause) or '0')
  redis.call('PEXPIRE', key, math.ceil((pause + forgotten) * 1000))
end
return '0'
