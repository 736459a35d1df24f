-- The memory limit: while the server is too full, no job is enqueued. Put in front of enqueue.lua, whose KEYS[1] and
-- ARGV it leaves alone and which Returns what it does, or an error that begins with FULL.
--
-- pm:full  a string, "<bytes used> <bytes allowed>", which the scheduler keeps there while it is so

local full = redis.pcall('GET', 'pm:full')
if type(full) == 'string' then return redis.error_reply('FULL ' .. full) end

