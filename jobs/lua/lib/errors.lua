-- Errors: failures that have the same fingerprint are counted as one error. worker/process/failure.py describes them.
-- requires: caller, coordination/redis/clock, events, guarded, records
--
-- pm:error:<fingerprint>       a hash: type, text, where, job, first, last, total, job_id, queues, releases, example,
--                              state ("resolved" or "ignored"), and h0 to h167, each "<hour from 1970> <count>"
-- pm:error:<fingerprint>:jobs  the last jobs that failed of it, the newest first
-- pm:errors                    all by when they were last seen    pm:errors-settled  those resolved or ignored likewise

local errors = {}

local MOST = 500
local MOST_JOBS, LONGEST_ID, LONGEST_EXAMPLE = 1000, 200, 8192
local MOST_NAMES, LONGEST_NAME = 10, 100 -- of queues and of releases
local HOURS, KEPT = 168, 7776000 -- seconds, 90 days since it was last seen

local call = guarded.call

-- A list of names, one a line, with another one as its last; the first make room for it.
local function with_name(names, name)
  name = name:sub(1, LONGEST_NAME)
  if not names or #names > 2 * MOST_NAMES * LONGEST_NAME then return name end
  if ('\n' .. names .. '\n'):find('\n' .. name .. '\n', 1, true) then return names end
  local _, breaks = names:gsub('\n', '')
  if breaks + 1 >= MOST_NAMES then names = names:match('\n(.*)$') end
  return names .. '\n' .. name
end

-- Forget those that were seen longest ago, settled ones first, until there is room for one more. Whether even these are
-- new: in a flood of errors nobody wants to be told of each.
local function make_room()
  local is_flood, too_old = false, clock.now - KEPT
  for _, all in ipairs({'pm:errors', 'pm:errors-settled'}) do call('ZREMRANGEBYSCORE', all, '-inf', too_old) end
  for _ = 1, 10 do
    if call('ZCARD', 'pm:errors') < MOST then break end
    local oldest = call('ZRANGE', 'pm:errors-settled', 0, 0)[1] or call('ZRANGE', 'pm:errors', 0, 0)[1]
    local key = 'pm:error:' .. oldest
    local first = tonumber(redis.pcall('HGET', key, 'first')) or 0
    is_flood = is_flood or clock.now - first < 3600
    redis.call('UNLINK', key, key .. ':jobs')
    for _, all in ipairs({'pm:errors', 'pm:errors-settled'}) do redis.call('ZREM', all, oldest) end
  end
  return is_flood
end

-- How often it was seen in this hour, with this time, as the field of the hour says it.
local function one_more(counted, hour)
  local of, count = (counted or ''):match('^(%d+) (%d+)$')
  return of == hour and string.format('%.0f', tonumber(count) + 1) or '1'
end

-- Count a failed attempt of a job; `traceback` is as a result keeps it, and `is_end` says that the job has failed.
function errors.count(failure, id, queue, traceback, is_end)
  local fingerprint, kind, text, where, job, shorter = unpack(failure, 1, 6)
  local key, at, hour = 'pm:error:' .. fingerprint, string.format('%.6f', clock.now), math.floor(clock.now / 3600)
  local slot = 'h' .. hour % HOURS
  local known = call('HMGET', key, 'state', 'total', 'queues', 'releases', slot)
  local state, total, places, releases, counted = unpack(known, 1, 5)
  local is_new, is_back, this_hour = not total, state == 'resolved', one_more(counted, tostring(hour))
  local is_flood = is_new and make_room()
  local sum = (total or ''):match('^%d+$') and #total < 15 and tonumber(total) or 0
  local fields = {'text', text, 'last', at, 'total', string.format('%.0f', sum + 1), 'job_id', id:sub(1, LONGEST_ID),
    slot, hour .. ' ' .. this_hour, 'queues', with_name(places, queue)}
  local function set(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  local release = caller.worker and redis.pcall('HGET', 'rq:worker:' .. caller.worker, 'release')
  if type(release) == 'string' and release ~= '' then set('releases', with_name(releases, release)) end
  if this_hour == '1' or is_back then set('example', #traceback > LONGEST_EXAMPLE and shorter or traceback) end
  for name, value in pairs(is_new and {type = kind, where = where, job = job, first = at} or {}) do set(name, value) end
  if is_back then set('state', 'open') end
  redis.call('HSET', key, unpack(fields))
  redis.call('EXPIRE', key, KEPT)
  call('ZADD', 'pm:errors', at, fingerprint)
  if state == 'ignored' then call('ZADD', 'pm:errors-settled', at, fingerprint) end
  if is_back then call('ZREM', 'pm:errors-settled', fingerprint) end
  if is_end then
    redis.pcall('HSET', records.key(id), 'fingerprint', fingerprint)
    if #id <= LONGEST_ID then call('LPUSH', key .. ':jobs', id) end
    call('LTRIM', key .. ':jobs', 0, MOST_JOBS - 1)
    redis.call('EXPIRE', key .. ':jobs', KEPT)
  end
  if is_back or is_new and not is_flood then
    events.emit(is_back and 'error_again' or 'error_new', id, queue, caller.worker,
      {fingerprint = fingerprint, error = kind, text = text, name = job})
  end
end

return errors
