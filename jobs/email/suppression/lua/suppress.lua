-- Suppress addresses and domains, or count soft bounces, of which too many suppress an address for a while.
-- requires: jobs/caller, suppressions
-- may use: jobs/guarded
--
-- KEYS[1]  the list    KEYS[2]  what remembers the report that says it; none if there is no report
-- KEYS[3]  the address's count of soft bounces; none if it is suppressed at once
-- ARGV[1]  now as RQ's text    ARGV[2]  source    ARGV[3]  seconds, 0 for ever    ARGV[4]  soft bounces that suppress
-- ARGV[5]  seconds for which reports and soft bounces are remembered
-- ARGV[6+]  address or "@" and domain, and reason, in turn
-- Returns  how many were added; none if the report was taken before

local list, report, counter = KEYS[1], KEYS[2], KEYS[3]
local now_text, source, seconds, most, remembered = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local named = {unpack(ARGV, 6)}

caller.at = now_text

if report and redis.call('EXISTS', report) == 1 then return 0 end

-- Whether it has bounced softly too often of late.
local function is_due()
  local count = guarded.call('INCR', counter)
  redis.call('EXPIRE', counter, remembered)
  if count < most then return false end
  redis.call('DEL', counter)
  return true
end

local added = 0
for place = 1, #named, 2 do
  if (not counter or is_due()) and suppressions.add(list, named[place], named[place + 1], source, seconds) then
    added = added + 1
  end
end
if report then redis.call('SET', report, 1, 'EX', remembered) end
return added
