-- The memory limit: while the server is too full, no job is enqueued.
--
-- pm:full  a string, "<bytes used> <bytes allowed>", which the scheduler sets while the server is too full

local memory = {}

-- An error that begins with FULL, or nothing.
function memory.refusal()
  local full = redis.pcall('GET', 'pm:full')
  if type(full) == 'string' then return redis.error_reply('FULL ' .. full) end
end

return memory
