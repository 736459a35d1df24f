-- Held jobs: those that were claimed while their batch was paused go back once it is not.
-- requires: guarded, records
-- may use: groups

local holding = {}

local JOBS_A_CALL = 500

-- Return some of a batch's held jobs to the front of their queues; whether there may be more.
function holding.give_back(batch)
  local key = 'pm:batch:' .. batch .. ':held'
  local ids = guarded.call('RPOP', key, JOBS_A_CALL) or {} -- the last first, since each goes to the front
  for _, id in ipairs(ids) do
    local queue, group, status = unpack(records.read(id, 'origin', 'group', 'status'))
    if queue and status == 'queued' then
      groups.join(queue, group, id, 'LPUSH')
    end
  end
  return #ids == JOBS_A_CALL
end

return holding
