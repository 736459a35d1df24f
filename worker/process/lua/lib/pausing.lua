-- Pauses: what a claim passes over because an operator has paused its queue or its batch, or made its worker quiet.
-- requires: jobs/guarded, jobs/queues, jobs/records

local pausing = {}

local batches_paused = {} -- each batch is looked up once

function pausing.holds(batch)
  if batches_paused[batch] == nil then
    batches_paused[batch] = guarded.call('SISMEMBER', 'pm:batches-paused', batch) == 1
  end
  return batches_paused[batch]
end

-- Which of a call's queues are paused, which is all for a quiet worker (its RQ hash is in pm:quiet), and all of its
-- queues: those that it serves, and those of the ids that blocking moves brought. So a call costs the same however many
-- other queues are paused.
function pausing.look(lists, waiting, worker)
  local paused, names = {}, {}
  for _, list in ipairs(lists) do names[#names + 1] = queues.name(list) end
  for _, id in ipairs(guarded.call('LRANGE', waiting, 0, -1)) do
    names[#names + 1] = records.get(id, 'origin')
  end
  if guarded.call('SISMEMBER', 'pm:quiet', worker) == 1 then return {unpack(names)}, names end
  local found = #names > 0 and guarded.call('SMISMEMBER', 'pm:paused', unpack(names)) or {}
  for i, is_paused in ipairs(found) do
    if is_paused == 1 then paused[#paused + 1] = names[i] end
  end
  return paused, names
end

-- Return what blocking moves brought to a worker from queues that are paused, so that the first is in front again.
function pausing.return_moved(waiting, queues_paused)
  local ids = guarded.call('LRANGE', waiting, 0, -1)
  for i = #ids, 1, -1 do
    local id, queue = ids[i], records.get(ids[i], 'origin')
    if queues_paused[queue] then
      guarded.call('LREM', waiting, 1, id)
      queues.push(queue, id, 'LPUSH')
    end
  end
end

return pausing
