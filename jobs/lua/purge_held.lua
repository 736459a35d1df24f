-- Delete jobs of one queue among those that a paused batch holds.
-- requires: caller, events, guarded, records
-- may use: batches, ending, withdrawal
--
-- KEYS[1]  the jobs that the batch holds
-- ARGV[1]  the queue    ARGV[2]  how many of the held jobs to pass over    ARGV[3]  at most how many to look at
-- ARGV[4]  now as RQ's text
-- Returns  how many jobs were deleted, and how many to pass over next; -1 after the last

local held = KEYS[1]
local queue, first, most, now_text = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]

local call = guarded.call
caller.at = now_text
local PURGED = '' -- no job has this id
local found = call('LRANGE', held, first, first + most - 1)
local taken, deleted = 0, 0

for i, id in ipairs(found) do
  if records.get(id, 'origin') == queue then
    call('LSET', held, first + i - 1, PURGED)
    taken = taken + 1
    if withdrawal.is_purged(id, queue) and ending.purge(id, queue) then deleted = deleted + 1 end
  end
end
if taken > 0 then call('LREM', held, taken, PURGED) end
batches.count_noted()
events.write()
return {deleted, #found < most and -1 or first + #found - taken}
