-- Batches: jobs that are counted together, each once, by how it ended last.
-- requires: coordination/redis/clock, counting, guarded
-- may use: deferring, flow_nodes, flows, giving, recounting
--
-- pm:batch:<id>        a hash: total, done, failed, canceled, sealed, ended, parent, collect, on_complete, on_success;
--                      and of a flow, start: "p" if it has yet to begin, "d" if it did, "c" or "s" if it never will
-- pm:batch:<id>:jobs   a hash of job id to "p" (pending), "d" (done), "f", "c" or, of a node of a flow, "s" (skipped); a
--                      nested batch is "batch:<id>"
-- pm:batch:<id>:held   the jobs claimed while it was paused    pm:batch:<id>:results  job id to its result

local batches = {}

local call = guarded.call
local COUNTERS = {d = 'done', s = 'done', f = 'failed', c = 'canceled'}
local function key_of(batch) return 'pm:batch:' .. batch end

-- The keys of a batch that live as long as it does.
local function keys_of(batch, is_flow)
  local key = key_of(batch)
  local keys = {key, key .. ':jobs', key .. ':results'}
  if is_flow then keys[4], keys[5], keys[6] = key .. ':nodes', key .. ':children', key .. ':ahead' end
  return keys
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
    'on_complete', 'on_success', 'recounting', 'start')
  if fields[6] then return end
  if fields[11] then return recounting.change(batch, ...) end
  local counts = numbers_of(fields)
  if not counts then return recounting.begin(batch) and batches.settle(batch) end
  local total, done, others = counts[1], counts[2], counts[3] + counts[4]
  if not fields[5] or done + others < total then return end
  redis.call('HSET', key, 'ended', string.format('%.6f', clock.now))
  deferring.call_back(fields[9])
  if others == 0 then deferring.call_back(fields[10]) else deferring.delete(fields[10]) end
  redis.pcall('SREM', 'pm:batches-paused', batch)
  local keep, start = counting.seconds_to_keep(fields[8]), fields[12]
  for _, each in ipairs(keys_of(batch, start)) do redis.call('EXPIRE', each, keep) end
  redis.call('UNLINK', key .. ':held')
  local never_began = (start == 'c' or start == 's') and start
  counting.note('batch:' .. batch, never_began or others == 0 and 'd' or 'f', fields[7] or '')
end

-- A job runs again after its end, so a batch that had ended, or was canceled, goes on. It ends once more, without
-- callbacks.
local function reopen(batch)
  local key = key_of(batch)
  if call('HDEL', key, 'ended') == 0 then return end
  redis.call('HDEL', key, 'stopped') -- its jobs may add others again
  local parent, start = unpack(redis.call('HMGET', key, 'parent', 'start'))
  for _, each in ipairs(keys_of(batch, start)) do redis.call('PERSIST', each) end
  counting.note('batch:' .. batch, 'p', parent or '')
end

-- Record the new states of jobs of a batch; `results` has the collected results of ended jobs, by id.
local function count(batch, ids, states, results)
  local key = key_of(batch)
  local before, changed, delta, has_nodes = call('HMGET', key .. ':jobs', unpack(ids)), {}, {}, false
  local function add(counter, by)
    if counter then delta[counter] = (delta[counter] or 0) + by end
  end
  for i, id in ipairs(ids) do
    local old = before[i]
    if old == 's' and states[id] == 'c' then states[id] = 's' end -- its record says no more
    if old then
      has_nodes = has_nodes or flow_nodes.may_be(batch, id)
      changed[#changed + 1], changed[#changed + 2] = id, states[id]
      if states[id] == 'p' then reopen(batch) end
      add(COUNTERS[states[id]], 1)
      add(COUNTERS[old], -1)
    end
  end
  if #changed == 0 then return end
  redis.call('HSET', key .. ':jobs', unpack(changed))
  for counter, by in pairs(delta) do redis.pcall('HINCRBY', key, counter, by) end -- garbage is counted again
  local names, texts = flow_nodes.among(batch, has_nodes and ids or {})
  if next(results) then
    local collects, ended, keep = unpack(redis.pcall('HMGET', key, 'collect', 'ended', 'keep'))
    giving.keep(batch, results, texts, collects == '1')
    if ended then redis.call('EXPIRE', key .. ':results', counting.seconds_to_keep(keep)) end -- its end was counted as another
  end
  if has_nodes then flows.change(batch, names, texts, ids, before, states) end
  batches.settle(batch, ids, before, states)
end

-- Count all that this call has noted, and what that makes it note; `more` are further notes, as counting.note takes them.
function batches.count_noted(more)
  for _, each in ipairs(more or {}) do counting.note(unpack(each)) end
  for batch, notes in counting.take do count(batch, unpack(notes)) end
end

return batches
