-- Count the jobs that the next entries of an index name, and delete its oldest entries.
-- requires: jobs/guarded, scheduler/fence
--
-- KEYS[1]  the index: a stream (jobs/index.lua)
-- ARGV[1]  the last entry that was counted, or "-"    ARGV[2]  at most how many entries to count
-- ARGV[3]  the first entry to keep, or ""    ARGV[4]  the leader's term, or ""
-- Returns  how many jobs they name, the last of these entries, and how many they are; "not leading" if another leads
-- A job counts once more for each BYTES_A_JOB that its entry takes beyond that, so that long names and ids are bounded.

local stream, after, most, keep, term = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local BYTES_A_JOB = 256
if not fence.admits(term) then return 'not leading' end

if keep ~= '' then guarded.call('XTRIM', stream, 'MINID', keep) end
local found = guarded.call('XRANGE', stream, after == '-' and after or '(' .. after, '+', 'COUNT', most)
local jobs, last = 0, after
for _, entry in ipairs(found) do
  local bytes, number = 0, tonumber(entry[2][2])
  if not number or number ~= number then number = 0 end
  for _, word in ipairs(entry[2]) do bytes = bytes + #word end
  jobs = jobs + math.min(math.max(number, math.ceil(bytes / BYTES_A_JOB), 1), 1000000)
  last = entry[1]
end
return {jobs, last, #found}
