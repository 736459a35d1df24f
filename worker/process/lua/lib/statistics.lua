-- Statistics: add up what a call acknowledges.
--
-- pm:stats:minute:<n>, pm:stats:hour:<n>, pm:stats:total   hashes of <queue>\31<type>\31<what> to a count
-- pm:top:busiest:<hour>, pm:top:slowest:<hour>             leaderboards (coordination/counters/leaderboard.py)

local statistics = {}

local MOST_MEMBERS = 100 -- of a leaderboard
local MOST_FIELDS = 20000 -- of one hash: names that somebody makes up without end are counted as "other"
local PERIODS = {{'pm:stats:minute:', 60, 7500}, {'pm:stats:hour:', 3600, 694800}}

-- `packed` is msgpack: [[field, count, ...], seconds that the worker was busy, [slowest job, its seconds, ...]]
function statistics.count(packed, worker, now)
  local fields, seconds, slowest = unpack(cmsgpack.unpack(packed))
  local keys = {'pm:stats:total'}
  for i, period in ipairs(PERIODS) do keys[i + 1] = period[1] .. math.floor(now / period[2]) end
  for i, key in ipairs(keys) do
    local size = redis.pcall('HLEN', key)
    if type(size) == 'number' then
      local is_full = size > MOST_FIELDS
      local known = {}
      for j = 1, #fields, 2 do
        local field = fields[j]
        if is_full then -- a type that is not there yet is counted among the others, whole
          local queue, kind, what = field:match('^([^\31]*)\31(.*)\31([^\31]*)$')
          local prefix = (queue or '') .. '\31' .. (kind or '') .. '\31'
          if known[prefix] == nil then known[prefix] = redis.call('HEXISTS', key, prefix .. 'us') == 1 end
          if not known[prefix] then field = (queue or '') .. '\31other\31' .. (what or '') end
        end
        redis.pcall('HINCRBY', key, field, fields[j + 1])
      end
      if size == 0 and i > 1 then redis.call('EXPIRE', key, PERIODS[i - 1][3]) end
    end
  end
  local hour = math.floor(now / 3600)
  local busiest, slow = 'pm:top:busiest:' .. hour, 'pm:top:slowest:' .. hour
  local sum = redis.pcall('ZINCRBY', busiest, seconds, worker)
  if type(sum) == 'string' and tonumber(sum) - seconds < 0.000001 then -- a worker that is new this hour
    redis.call('ZREMRANGEBYRANK', busiest, 0, -MOST_MEMBERS - 1)
    redis.call('EXPIRE', busiest, PERIODS[2][3])
  end
  if #slowest > 0 then
    for i = 1, #slowest, 2 do redis.pcall('ZADD', slow, 'GT', slowest[i + 1], slowest[i]) end
    redis.pcall('ZREMRANGEBYRANK', slow, 0, -MOST_MEMBERS - 1)
    redis.call('EXPIRE', slow, PERIODS[2][3])
  end
end

return statistics
