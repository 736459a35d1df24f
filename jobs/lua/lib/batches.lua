-- Batches: jobs that are counted together, each once, by how it ended last.
-- requires: coordination/redis/clock, counting, guarded
-- may use: batch_callbacks, recounting
--
-- pm:batch:<id>        a hash: total, done, failed, canceled, sealed, ended, parent, collect, on_complete, on_success
-- pm:batch:<id>:jobs   a hash of job id to "p" (pending), "d" (done), "f" or "c"; a nested batch is "batch:<id>"
-- pm:batch:<id>:held   the jobs claimed while it was paused    pm:batch:<id>:results  job id to its result

local batches = {}

local call = guarded.call
local COUNTERS = {d = 'done', f = 'failed', c = 'canceled'}
local LONGEST_RESULT, LONGEST_SPAN = 65536, 3153600000
local function key_of(batch) return 'pm:batch:' .. batch end

local function seconds_to_keep(text)
  local keep = tonumber(text) or 0
  return keep >= 1 and keep <= LONGEST_SPAN and math.floor(keep) or 604800
end

-- Counters as numbers, or nothing if they can't be true: one is garbage, or more jobs have ended than there are.
local function numbers_of(fields)
  local numbers = {}
  for i = 1, 4 do
    local text = fields[i] or '0'
    numbers[i] = (text == '0' or #text < 16 and text:match('^[1-9]%d*$')) and tonumber(text)
    if not numbers[i] then return end
  end
  return numbers[1] >= numbers[2] + numbers[3] + numbers[4] and numbers
end

-- End a sealed batch, once, if all of its jobs have ended. Otherwise jobs may just have changed, as recounting.change
-- takes them.
function batches.settle(batch, ...)
  local key = key_of(batch)
  local fields = redis.pcall('HMGET', key, 'total', 'done', 'failed', 'canceled', 'sealed', 'ended', 'parent', 'keep',
    'on_complete', 'on_success', 'recounting')
  if fields[6] then return end
  if fields[11] then return recounting.change(batch, ...) end
  local counts = numbers_of(fields)
  if not counts then return recounting.begin(batch) and batches.settle(batch) end
  local total, done, others = counts[1], counts[2], counts[3] + counts[4]
  if not fields[5] or done + others < total then return end
  redis.call('HSET', key, 'ended', string.format('%.6f', clock.now))
  batch_callbacks.enqueue(fields[9])
  if others == 0 then batch_callbacks.enqueue(fields[10]) else batch_callbacks.delete(fields[10]) end
  redis.pcall('SREM', 'pm:batches-paused', batch)
  local keep = seconds_to_keep(fields[8])
  for _, each in ipairs({key, key .. ':jobs', key .. ':results'}) do redis.call('EXPIRE', each, keep) end
  redis.call('UNLINK', key .. ':held')
  counting.note('batch:' .. batch, others == 0 and 'd' or 'f', fields[7] or '')
end

-- A job runs again after its end, so a batch that had ended goes on. It ends once more, without callbacks.
local function reopen(batch)
  local key = key_of(batch)
  if call('HDEL', key, 'ended') == 0 then return end
  for _, each in ipairs({key, key .. ':jobs', key .. ':results'}) do redis.call('PERSIST', each) end
  counting.note('batch:' .. batch, 'p', redis.call('HGET', key, 'parent') or '')
end

-- Record the new states of jobs of a batch; `results` has the collected results of ended jobs, by id.
local function count(batch, ids, states, results)
  local key = key_of(batch)
  local before = call('HMGET', key .. ':jobs', unpack(ids))
  local changed, delta = {}, {}
  for i, id in ipairs(ids) do
    local old, new = before[i], states[id]
    if old then
      changed[#changed + 1] = id
      changed[#changed + 1] = new
      if COUNTERS[new] then delta[COUNTERS[new]] = (delta[COUNTERS[new]] or 0) + 1 end
      if new == 'p' then reopen(batch) end
      if COUNTERS[old] then delta[COUNTERS[old]] = (delta[COUNTERS[old]] or 0) - 1 end
    end
  end
  if #changed == 0 then return end
  redis.call('HSET', key .. ':jobs', unpack(changed))
  for counter, by in pairs(delta) do redis.pcall('HINCRBY', key, counter, by) end -- garbage is counted again
  if next(results) and redis.pcall('HGET', key, 'collect') == '1' then
    for id, result in pairs(results) do
      call('HSET', key .. ':results', id, #result > LONGEST_RESULT and '!' or result)
    end
    local ended, keep = unpack(redis.pcall('HMGET', key, 'ended', 'keep'))
    if ended then redis.call('EXPIRE', key .. ':results', seconds_to_keep(keep)) end -- its end was counted as another
  end
  batches.settle(batch, ids, before, states)
end

-- Count all that this call has noted, and what that makes it note.
function batches.count_noted()
  for batch, notes in counting.take do count(batch, unpack(notes)) end
end

return batches
