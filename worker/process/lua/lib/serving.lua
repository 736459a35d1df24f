-- Serving: claim from the waiting list and from queues of which some are paused, have a rate, or have priorities.
-- requires: claiming, coordination/redis/clock, jobs/guarded, jobs/queues, this_claim
-- may use: jobs/bands, jobs/groups, jobs/hosts, jobs/rates, pausing

local serving = {}

local SHARE = 16 -- one job in so many is of another band than the best, on average

-- Those of some queues that have jobs in bands, by name.
local function banded(names)
  local keys, found = {}, {}
  for i, name in ipairs(names) do keys[i] = queues.key(name) end
  for i, scout in ipairs(keys[1] and guarded.call('HMGET', 'pm:bands', unpack(keys)) or {}) do
    if scout then found[names[i]] = true end
  end
  return found
end

-- Claim from a queue with bands, the best first. The others take turns in their share of the claim, so that none is
-- starved: by chance, since the claims of all workers have no count in common.
local function claim_from_bands(queue, list)
  bands.recall(list)
  local filled, want = bands.filled(list), this_claim.want
  local others, share = #filled - 1, (want - this_claim.count) / SHARE + clock.microseconds % 1024 / 1024
  for turn = 1, others > 0 and math.floor(share) or 0 do
    this_claim.want = math.min(want, this_claim.count + 1)
    claiming.from(filled[2 + (clock.microseconds + turn) % others], queue)
  end
  this_claim.want = want
  local looks
  repeat -- the next of a group may wait in a better band than the one before
    looks = this_claim.looks
    for _, each in ipairs(filled) do claiming.from(each, queue) end
    local is_done = this_claim.count >= want or this_claim.looks <= 0 or this_claim.looks == looks
    filled = is_done and {} or bands.filled(list)
  until #filled == 0
end

-- Claim from the waiting list, and then from the queues' lists. `names` are the queues of all that, and `paused` those
-- that are paused, to which queues whose rate allows nothing now are added. The time at which the first of these goes on.
function serving.claim(lists, waiting, names, paused)
  local soonest
  groups.unblock_due(clock.now)
  this_claim.rooms, soonest = rates.rooms(names, paused)
  local is_paused = {}
  for _, queue in ipairs(paused) do is_paused[queue] = true end
  if #lists > 0 and this_claim.has_hosts then hosts.offer(names, is_paused) end
  local has_bands = banded(names)
  if #paused > 0 then pausing.return_moved(waiting, is_paused) end
  claiming.from(waiting)
  for _, list in ipairs(lists) do
    local queue = queues.name(list)
    if has_bands[queue] and not is_paused[queue] then
      claim_from_bands(queue, list)
    elseif not is_paused[queue] then
      claiming.from(list)
    end
  end
  if next(this_claim.rooms) then rates.begin(this_claim.rooms) end
  for queue in pairs(has_bands) do bands.follow(queues.key(queue)) end
  return soonest
end

return serving
