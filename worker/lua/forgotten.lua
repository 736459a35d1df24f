-- Name ended jobs whose dependents are still to be enqueued, though that began a while ago, the earliest first.
-- requires: coordination/redis/clock, jobs/events, jobs/guarded
--
-- KEYS[1]  the ended jobs whose dependents are still to be enqueued
-- ARGV[1]  at most how many    ARGV[2]  after how many seconds whoever began with it is dead
-- Returns  their ids

local parents = KEYS[1]
local most, seconds = ARGV[1], ARGV[2]

local ids = guarded.call('ZRANGEBYSCORE', parents, '-inf', clock.now - seconds, 'LIMIT', 0, most)
events.write() -- that a key of another type was set aside
return ids
