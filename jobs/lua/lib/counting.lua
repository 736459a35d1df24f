-- Counting: each change of a job that its batch counts is noted here, until the script has it counted at its end
-- (batches.count_noted). So whatever ends a job, even the end of a batch, can note it.
-- requires: records

local counting = {}

local WEEK, LONGEST_SPAN = 604800, 3153600000

counting.noted = {} -- by batch the jobs, and by job the states and results
counting.unfinished = {} -- flows in which a change has yet to reach nodes, which this call leaves to others

-- How a job with this status ended, or nothing if it has not.
function counting.state_of(status)
  return ({finished = 'd', failed = 'f', stopped = 'f', canceled = 'c'})[status]
end

-- Note how a job ended, or "p" if it runs again. Callbacks have a word behind their batch's id and don't count. `batch`
-- is the record's field, which is read if it isn't given; `result` is for batches that collect them.
function counting.note(id, state, batch, result)
  batch = state and (batch or records.get(id, 'batch'))
  if not batch or batch == '' or batch:find(' ', 1, true) then return end
  if not counting.noted[batch] then counting.noted[batch] = {{}, {}, {}} end
  local jobs, states, results = unpack(counting.noted[batch])
  if not states[id] then jobs[#jobs + 1] = id end
  states[id], results[id] = state, result
end

-- For how many seconds a batch is kept after its end, by its field `keep`, which may be garbage.
function counting.seconds_to_keep(text)
  local keep = tonumber(text) or 0
  return keep >= 1 and keep <= LONGEST_SPAN and math.floor(keep) or WEEK
end

-- Take the notes of one batch; nothing if there are none.
function counting.take()
  local batch, notes = next(counting.noted)
  if batch then counting.noted[batch] = nil end
  return batch, notes
end

return counting
