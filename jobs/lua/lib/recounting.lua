-- Recounting: the counters of a batch are computed again if they are not numbers or don't match its jobs. A batch may be
-- large, so that takes several calls: the scheduler goes on with it (settle_batch.lua), and meanwhile the batch can't end.
-- requires: guarded
--
-- pm:batch:<id>:recount  a hash of the jobs that were counted again, beside their sums .d, .f and .c

local recounting = {}

local call = guarded.call
local JOBS_AT_FIRST, DAY = 500, 86400
local function key_of(batch) return 'pm:batch:' .. batch end

-- Add to the sums. If they are garbage, it begins anew.
local function add(again, sums)
  for _, state in ipairs({'d', 'f', 'c'}) do
    local sum = (sums[state] or 0) + (state == 'd' and sums.s or 0) -- what was skipped counts as done
    if type(redis.pcall('HINCRBY', again, '.' .. state, sum)) == 'table' then
      redis.call('UNLINK', again)
      return
    end
  end
  redis.call('EXPIRE', again, DAY)
end

-- Count some jobs, `found` as HSCAN has them with their states, each once. Whether all have been counted, and the counters
-- are right; that can only be after the last ones.
function recounting.step(batch, found, is_last)
  local key = key_of(batch)
  local again, sums = key .. ':recount', {}
  for i = 1, #found, 2 do
    local id, state = found[i], found[i + 1]
    if call('HSETNX', again, id, '') == 1 then sums[state] = (sums[state] or 0) + 1 end
  end
  add(again, sums)
  if not is_last then return false end
  local total = call('HLEN', key .. ':jobs')
  if call('HLEN', again) - 3 < total then return false end -- it began amidst them, or the server was restarted
  local done, failed, canceled = unpack(redis.call('HMGET', again, '.d', '.f', '.c'))
  redis.call('HSET', key, 'total', total, 'done', done, 'failed', failed, 'canceled', canceled)
  redis.call('HDEL', key, 'recounting')
  redis.call('UNLINK', again)
  return true
end

-- Begin with the first jobs, which often are all. Whether the counters are right.
function recounting.begin(batch)
  local key = key_of(batch)
  if type(redis.pcall('HSET', key, 'recounting', '1')) == 'table' then return false end -- the memory is full
  local found = call('HSCAN', key .. ':jobs', '0', 'COUNT', JOBS_AT_FIRST)
  return recounting.step(batch, found[2], found[1] == '0')
end

-- Jobs, an array of ids, have changed: their states before, in the same order, and the new ones by id. Those that were
-- counted again count by the new ones.
function recounting.change(batch, ids, before, states)
  local again, sums = key_of(batch) .. ':recount', {}
  local counted = ids and call('HMGET', again, unpack(ids)) or {}
  for i, id in ipairs(ids or {}) do
    local old, new = before[i], states[id]
    if old and counted[i] then
      sums[old] = (sums[old] or 0) - 1
      sums[new] = (sums[new] or 0) + 1
    end
  end
  if next(sums) then add(again, sums) end
end

return recounting
