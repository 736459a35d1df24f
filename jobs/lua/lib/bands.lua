-- Bands: jobs with a priority wait beside their queue's list, in one list for each band of priorities.
-- requires: guarded, records
--
-- <list>,+2 and so on   the bands of a queue's list; that itself has the jobs without a priority
-- pm:bands              a hash of the lists that have bands with jobs, each with its scout, "" if it has none
--
-- Idle workers wait at the queue's list alone. So whenever that is empty, the best job of its bands is moved there, as
-- their scout. It wakes a worker, whose claim sends the next one. If all are busy, the next claim puts the scout back
-- before it looks, since others may have overtaken it.

local bands = {}

local call = guarded.call
local HALF = 50 -- of the priorities above 0, and of those below
local MOST_BEFORE = 1000 -- jobs, at the front of the list, before a scout that is still found

-- The list in which a job of this priority waits, that of its queue if it has none.
function bands.list_of(list, priority)
  local number = tonumber(priority) or 0
  if number > 0 then return list .. (number > HALF and ',+2' or ',+1') end
  if number < 0 then return list .. (number < -HALF and ',-2' or ',-1') end
  return list
end

-- All lists of a queue's jobs, in the order in which they are served.
function bands.all(list) return {list .. ',+2', list .. ',+1', list, list .. ',-1', list .. ',-2'} end

function bands.is_band(key) return key:find(',[+-][12]$') ~= nil end

-- If nobody waits in the queue's list, let a scout wait there, or forget the bands since they are empty. Nothing if
-- somebody does.
function bands.send_scout(list)
  if redis.call('EXISTS', list) == 1 then return end
  for _, each in ipairs(bands.all(list)) do
    local id = each ~= list and call('LMOVE', each, list, 'LEFT', 'RIGHT')
    if id then return call('HSET', 'pm:bands', list, id) end
  end
  return call('HDEL', 'pm:bands', list)
end

-- Put the scout back in front of its band, if it is still in the queue's list.
function bands.recall(list)
  local scout = call('HGET', 'pm:bands', list) or ''
  if scout ~= '' and call('LPOS', list, scout, 'MAXLEN', MOST_BEFORE) then
    call('LPUSH', bands.list_of(list, records.get(scout, 'priority')), scout)
    call('LREM', list, 1, scout)
  end
  if scout ~= '' then call('HSET', 'pm:bands', list, '') end
end

-- Add an array of jobs of one priority.
function bands.push(list, ids, push, priority)
  local band = bands.list_of(list, priority)
  if push == 'LPUSH' then bands.recall(list) end -- it would come before these
  call(push, band, unpack(ids))
  if band ~= list then
    call('HSETNX', 'pm:bands', list, '')
    call('SADD', 'rq:queues', band)
    bands.send_scout(list)
  end
end

-- Remove a job, which may be the scout or the last one; how many were there.
function bands.remove(list, id, priority)
  local band = bands.list_of(list, priority)
  local places = call('LREM', band, 1, id)
  if band == list then return places end
  if places == 0 then places = call('LREM', list, 1, id) end
  if places > 0 then bands.send_scout(list) end
  return places
end

-- The lists that have jobs, the best first.
function bands.filled(list)
  local found = {}
  for _, each in ipairs(bands.all(list)) do
    if call('LLEN', each) > 0 then found[#found + 1] = each end
  end
  return found
end

-- A claim has taken jobs: send the next scout, or forget the bands if they are empty.
function bands.follow(list)
  if bands.send_scout(list) then return end
  local filled = call('HGET', 'pm:bands', list) == '' and bands.filled(list)
  if filled and #filled == 1 and filled[1] == list then call('HDEL', 'pm:bands', list) end
end

-- Look at a band by its key: its queue must know of its jobs, and a worker must come for them.
function bands.repair(band)
  if redis.call('EXISTS', band) == 0 then return end
  local list = band:sub(1, -4)
  call('HSETNX', 'pm:bands', list, '')
  bands.send_scout(list)
end

return bands
