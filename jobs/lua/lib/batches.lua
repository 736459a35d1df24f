-- Batches: jobs that are counted together, each once, by how it ended last.
-- requires: coordination/redis/clock, guarded, records
-- may use: batch_callbacks, batch_members
--
-- pm:batch:<id>        a hash: total, done, failed, canceled, sealed, ended, parent, collect, on_complete, on_success
-- pm:batch:<id>:jobs   a hash of job id to "p" (pending), "d" (done), "f" or "c"; a nested batch is "batch:<id>"
-- pm:batch:<id>:held   the jobs claimed while it was paused    pm:batch:<id>:results  job id to its result

local batches = {}

local call = guarded.call
local COUNTERS = {d = 'done', f = 'failed', c = 'canceled'}
local LONGEST_RESULT, LONGEST_SPAN = 65536, 3153600000
local function key_of(batch) return 'pm:batch:' .. batch end

-- How a job with this status ended, or nothing if it has not. A finished job with a result TTL of 0 has no status.
function batches.state_of(status)
  return ({finished = 'd', failed = 'f', stopped = 'f', canceled = 'c'})[status or 'finished']
end

-- The batch in a record's field, if the job counts in it. Callbacks have a word behind the id and don't count.
function batches.of(field)
  return type(field) == 'string' and field ~= '' and not field:find(' ', 1, true) and field
end

local function seconds_to_keep(text)
  local keep = tonumber(text) or 0
  return keep >= 1 and keep <= LONGEST_SPAN and math.floor(keep) or 604800
end

-- Counters as numbers, or nothing if one of them is garbage.
local function numbers_of(...)
  local numbers, sum = {}, 0
  for i, text in ipairs({...}) do
    numbers[i] = tonumber(text or 0)
    sum = sum + math.abs(numbers[i] or math.huge)
  end
  return sum < math.huge and numbers
end

-- End a sealed batch, once, if all of its jobs have ended.
function batches.settle(batch, is_recounted)
  local key = key_of(batch)
  local fields = redis.pcall('HMGET', key, 'total', 'done', 'failed', 'canceled', 'sealed', 'ended', 'parent', 'keep',
    'on_complete', 'on_success')
  if fields.err or not fields[5] or fields[6] then return end
  local counts = numbers_of(unpack(fields, 1, 4))
  if not counts then return not is_recounted and batch_members.recount(batch) and batches.settle(batch, true) end
  local total, done, others = counts[1], counts[2], counts[3] + counts[4]
  if done + others < total then return end
  redis.call('HSET', key, 'ended', string.format('%.6f', clock.now))
  batch_callbacks.enqueue(fields[9])
  if others == 0 then batch_callbacks.enqueue(fields[10]) else batch_callbacks.delete(fields[10]) end
  redis.pcall('SREM', 'pm:batches-paused', batch)
  local keep = seconds_to_keep(fields[8])
  for _, each in ipairs({key, key .. ':jobs', key .. ':results'}) do redis.call('EXPIRE', each, keep) end
  redis.call('DEL', key .. ':held')
  for _, id in ipairs(batch_callbacks.replaced) do batches.ended(id, 'c') end
  if fields[7] then batches.count(fields[7], {'batch:' .. batch}, {others == 0 and 'd' or 'f'}) end
end

-- A job runs again after its end, so a batch that had ended goes on. It ends once more, without callbacks.
local function reopen(batch)
  local key = key_of(batch)
  if call('HDEL', key, 'ended') == 0 then return end
  for _, each in ipairs({key, key .. ':jobs', key .. ':results'}) do redis.call('PERSIST', each) end
  local parent = redis.call('HGET', key, 'parent')
  if parent then batches.count(parent, {'batch:' .. batch}, {'p'}) end
end

-- Record the new states of jobs of a batch; "p" is for a job that runs again after its end. `results` has the
-- collected results of ended jobs, by id.
function batches.count(batch, ids, states, results)
  local key = key_of(batch)
  local before = call('HMGET', key .. ':jobs', unpack(ids))
  local changed, delta = {}, {}
  for i, id in ipairs(ids) do
    local old, new = before[i], states[i]
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
  for counter, by in pairs(delta) do
    if type(redis.pcall('HINCRBY', key, counter, by)) == 'table' then batch_members.recount(batch) end
  end
  if results and redis.pcall('HGET', key, 'collect') == '1' then
    for id, result in pairs(results) do
      call('HSET', key .. ':results', id, #result > LONGEST_RESULT and '!' or result)
    end
    local ended, keep = unpack(redis.pcall('HMGET', key, 'ended', 'keep'))
    if ended then redis.call('EXPIRE', key .. ':results', seconds_to_keep(keep)) end -- its end was counted as another
  end
  batches.settle(batch)
end

-- Record the new state of one job, if it counts in a batch, and its collected result if it has one.
function batches.ended(id, state, result)
  local batch = batches.of(records.get(id, 'batch'))
  if batch then batches.count(batch, {id}, {state}, result and {[id] = result}) end
end

return batches
