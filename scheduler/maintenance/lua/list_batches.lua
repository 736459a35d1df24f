-- List the ids of batches, the oldest first.
-- requires: jobs/events, jobs/guarded
--
-- KEYS[1]  all batches
-- ARGV[1]  the first place    ARGV[2]  the last one
-- Returns  [id, ...]

local all = KEYS[1]
local first, last = ARGV[1], ARGV[2]

local ids = guarded.call('ZRANGE', all, first, last)
events.write()
return ids
