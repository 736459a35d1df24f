-- Delete some of the jobs that wait in a queue: their records, results and progress.
-- requires: callbacks, events, queues, records
-- may use: batches, groups
--
-- KEYS[1]  the queue's list    ARGV[1]  its name    ARGV[2]  at most how many
-- Returns  how many jobs were deleted, and how many ids were taken off the list: 0 if none are left

local list = KEYS[1]
local queue, most = ARGV[1], tonumber(ARGV[2])

local ids = queues.take(list, most)
local deleted = 0

local function delete(id)
  local record = records.key(id)
  local group = records.get(id, 'group')
  if group then groups.leave(queue, group, id) end -- the next of its group becomes the head
  batches.ended(id, 'c')
  deleted = deleted + redis.call('DEL', record)
  redis.call('DEL', 'rq:results:' .. id, 'pm:progress:' .. id, record .. ':dependents')
  events.emit('canceled', id, queue, nil, {reason = 'purged'})
end

for _, id in ipairs(ids) do
  if callbacks.due(id, records.get(id, 'status')) then
    callbacks.give_up(id, queue) -- the job itself has ended
  else
    delete(id)
  end
end
events.write()
return {deleted, #ids}
