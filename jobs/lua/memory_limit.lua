-- The memory limit: while the server is too full, no job is enqueued. In front of enqueue.lua, with its KEYS[1] and
-- ARGV; it Returns what enqueue.lua does, or an error that begins with FULL.
--
-- pm:full  a string, "<bytes used> <bytes allowed>", which the scheduler sets while the server is too full

local full = redis.pcall('GET', 'pm:full')
if type(full) == 'string' then return redis.error_reply('FULL ' .. full) end

