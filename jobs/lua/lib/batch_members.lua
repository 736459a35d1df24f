-- The jobs of batches: whether some may be added, and adding them.
-- requires: guarded

local batch_members = {}

local function key_of(batch) return 'pm:batch:' .. batch end

-- Why no job can be added to a batch, or nothing.
function batch_members.refusal(batch)
  local fields = redis.pcall('HMGET', key_of(batch), 'created', 'ended', 'stopped')
  if not fields[1] then return 'no batch has the id ' .. batch end
  if fields[2] then return 'batch ' .. batch .. ' has ended' end
  if fields[3] then return 'batch ' .. batch .. ' is canceled' end
end

-- Count new jobs, an array of ids.
function batch_members.add(batch, ids)
  local pairs_of = {}
  for _, id in ipairs(ids) do
    pairs_of[#pairs_of + 1] = id
    pairs_of[#pairs_of + 1] = 'p'
  end
  guarded.call('HSET', key_of(batch) .. ':jobs', unpack(pairs_of))
  redis.pcall('HINCRBY', key_of(batch), 'total', #ids)
end

return batch_members
