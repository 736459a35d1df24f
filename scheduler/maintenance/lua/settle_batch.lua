-- Count jobs of a batch that ended elsewhere: RQ's code canceled or deleted them, or a worker of RQ's performed them.
-- Jobs that a batch still holds although it is not paused go back: whoever resumed it may have died over it.
-- requires: jobs/caller, jobs/counting, jobs/events, jobs/guarded, jobs/records, scheduler/fence
-- may use: jobs/batches, jobs/holding, jobs/recounting
--
-- KEYS[1]  the batch    KEYS[2]  the states of its jobs
-- ARGV[1]  the batch    ARGV[2]  a cursor among its jobs, "0" at first    ARGV[3]  about how many jobs to look at
-- ARGV[4]  now as RQ's text    ARGV[5]  the leader's term, or ""
-- Returns  the next cursor, "0" after the last, and how many jobs were counted; "not leading" if another leads

local key, jobs = KEYS[1], KEYS[2]
local batch, cursor, most, now_text, term = unpack(ARGV)

if not fence.admits(term) then return 'not leading' end
caller.at = now_text

local collects, is_recounting = unpack(redis.pcall('HMGET', key, 'collect', 'recounting'))

-- The state of a job that is pending for its batch; "p" if it has not ended.
local function state_of(id)
  if id:sub(1, 6) == 'batch:' then return redis.call('EXISTS', 'pm:' .. id) == 1 and 'p' or 'f' end
  local fields = records.read(id, 'status')
  if fields[1] then return counting.state_of(fields[1]) or 'p' end
  return records.exists(id) and 'p' or 'c'
end

-- The result as a batch collects it.
local function result_of(id, state)
  local last = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)[1]
  for i, name in ipairs(last and last[2] or {}) do
    if name == 'return_value' or name == 'exc_string' then return (state == 'd' and '+' or '-') .. last[2][i + 1] end
  end
end

local counted = 0
local found = guarded.call('HSCAN', jobs, cursor, 'COUNT', most)
if is_recounting then recounting.step(batch, found[2], found[1] == '0') end
for i = 1, #found[2], 2 do
  local id, state = found[2][i], found[2][i + 1]
  state = state == 'p' and state_of(id) or 'p'
  if state ~= 'p' then
    counted = counted + 1
    counting.note(id, state, batch, collects == '1' and result_of(id, state) or nil)
  end
end
batches.count_noted()
if found[1] == '0' then batches.settle(batch) end -- its last job may have been counted without that
batches.count_noted()
if redis.call('EXISTS', key .. ':held') == 1 and guarded.call('SISMEMBER', 'pm:batches-paused', batch) == 0 then
  holding.give_back(batch)
end
events.write()
return {found[1], counted}
