-- Count jobs of a batch that ended elsewhere: RQ's code canceled or deleted them, or a worker of RQ's performed them.
-- Jobs that a batch still holds although it is not paused go back: whoever resumed it may have died over it.
-- requires: jobs/caller, jobs/events, jobs/guarded, jobs/records, scheduler/fence
-- may use: jobs/batches, jobs/holding
--
-- KEYS[1]  the batch    KEYS[2]  the states of its jobs
-- ARGV[1]  the batch    ARGV[2]  a cursor among its jobs, "0" at first    ARGV[3]  about how many jobs to look at
-- ARGV[4]  now as RQ's text    ARGV[5]  the leader's term, or ""
-- Returns  the next cursor, "0" after the last, and how many jobs were counted; "not leading" if another leads

local key, jobs = KEYS[1], KEYS[2]
local batch, cursor, most, now_text, term = unpack(ARGV)

if not fence.admits(term) then return 'not leading' end
caller.at = now_text

local collects = redis.pcall('HGET', key, 'collect') == '1'
local ids, states, results = {}, {}, {}

-- The state of a job that is pending for its batch; "p" if it has not ended.
local function state_of(id)
  if id:sub(1, 6) == 'batch:' then return redis.call('EXISTS', 'pm:' .. id) == 1 and 'p' or 'f' end
  local fields = records.read(id, 'status')
  if fields[1] then return batches.state_of(fields[1]) or 'p' end
  return (fields.err or records.exists(id)) and 'p' or 'c'
end

-- The result as a batch collects it.
local function result_of(id, state)
  local last = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)[1]
  for i, name in ipairs(last and last[2] or {}) do
    if name == 'return_value' or name == 'exc_string' then return (state == 'd' and '+' or '-') .. last[2][i + 1] end
  end
end

local found = guarded.call('HSCAN', jobs, cursor, 'COUNT', most)
for i = 1, #found[2], 2 do
  local id, state = found[2][i], found[2][i + 1]
  state = state == 'p' and state_of(id) or 'p'
  if state ~= 'p' then
    ids[#ids + 1], states[#states + 1] = id, state
    if collects then results[id] = result_of(id, state) end
  end
end
if #ids > 0 then
  batches.count(batch, ids, states, results)
elseif found[1] == '0' then
  batches.settle(batch) -- its last job may have been counted without that
end
if redis.call('EXISTS', key .. ':held') == 1 and guarded.call('SISMEMBER', 'pm:batches-paused', batch) == 0 then
  holding.give_back(batch)
end
events.write()
return {found[1], #ids}
