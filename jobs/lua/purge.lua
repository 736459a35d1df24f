-- Delete some of the jobs that wait in a queue: their records, results and progress.
--
-- KEYS[1]  the queue's list    ARGV[1]  its name    ARGV[2]  at most how many
-- Returns  how many jobs were deleted, and how many ids were taken off the list: 0 if none are left

local ids = call('LPOP', KEYS[1], tonumber(ARGV[2])) or {}
local deleted = 0
for _, id in ipairs(ids) do
  local record = 'rq:job:' .. id
  local group = redis.pcall('HGET', record, 'group')
  if type(group) == 'string' then groups.leave(ARGV[1], group, id) end -- the next of its group becomes the head
  batches.ended(id, 'c')
  deleted = deleted + redis.call('DEL', record)
  redis.call('DEL', 'rq:results:' .. id, 'pm:progress:' .. id, record .. ':dependents')
  emit('canceled', id, ARGV[1], nil, {reason = 'purged'})
end
write_events()
return {deleted, #ids}
