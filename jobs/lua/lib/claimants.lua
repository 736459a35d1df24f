-- Claimants: the workers that hold a job, whatever its record says. RQ's code cancels jobs without asking whether they
-- run, and a record names no worker until its job is marked as started.
-- requires: records

local claimants = {}

local MOST = 2000 -- workers that a call looks at, the living ones first; each look takes one or two microseconds
local AT_ONCE = 200

local function workers() return redis.pcall('ZREVRANGE', 'pm:leases', 0, MOST - 1) end -- none if there is an error

-- The worker that claims a job, or nothing.
function claimants.find(id)
  local likely = records.get(id, 'worker_name')
  if likely and redis.pcall('HEXISTS', 'pm:claims:' .. likely, id) == 1 then return likely end
  for _, worker in ipairs(workers()) do
    if redis.pcall('HEXISTS', 'pm:claims:' .. worker, id) == 1 then return worker end
  end
end

-- Remove a job that blocking moves have just brought to workers, whose claims have yet to take it.
function claimants.withdraw(id)
  local all = workers()
  for i, worker in ipairs(all) do all[i] = 'pm:waiting:' .. worker end
  for first = 1, #all, AT_ONCE do
    local lists = {unpack(all, first, math.min(first + AT_ONCE - 1, #all))}
    if redis.call('EXISTS', unpack(lists)) > 0 then -- few workers wait with a job
      for _, list in ipairs(lists) do redis.pcall('LREM', list, 1, id) end
    end
  end
end

return claimants
