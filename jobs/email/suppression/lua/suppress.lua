-- Suppress addresses and domains, or count soft bounces, of which too many suppress an address for a while.
-- requires: jobs/caller, suppressions
-- may use: jobs/guarded
--
-- KEYS[1]  the list    KEYS[2+]  for each that is only counted, its count of soft bounces; none if all are suppressed
-- ARGV[1]  now as RQ's text    ARGV[2]  source    ARGV[3]  seconds, 0 for ever    ARGV[4]  soft bounces that suppress
-- ARGV[5]  seconds for which soft bounces are counted    ARGV[6+]  address or "@" and domain, and reason, in turn
-- Returns  how many were added

local list, counters = KEYS[1], {unpack(KEYS, 2)}
local now_text, source, seconds, most, counted_for = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local named = {unpack(ARGV, 6)}

caller.at = now_text

-- Whether it has bounced softly too often of late.
local function is_due(counter)
  if not counter then return true end
  local count = guarded.call('INCR', counter)
  redis.call('EXPIRE', counter, counted_for)
  if count < most then return false end
  redis.call('DEL', counter)
  return true
end

local added = 0
for place = 1, #named, 2 do
  if is_due(counters[(place + 1) / 2]) and suppressions.add(list, named[place], named[place + 1], source, seconds) then
    added = added + 1
  end
end
return added
