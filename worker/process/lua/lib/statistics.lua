-- Statistics: add up what a call acknowledges.
--
-- pm:stats:minute:<n>, pm:stats:hour:<n>, pm:stats:total   hashes of <queue>\31<type>\31<what> to a count
-- pm:top:busiest:<hour>, pm:top:slowest:<hour>             leaderboards (coordination/counters/leaderboard.py)

local statistics = {}

local MOST_MEMBERS = 100 -- of a leaderboard
local MOST_FIELDS = 20000 -- of one hash: names that somebody makes up without end are counted as "other"
local MINUTE_TTL, HOUR_TTL = 7500, 694800

-- Fields are new in a hash. The first ones make it expire, and those of types that came too late are counted among the
-- others, whole.
local function note_new(key, new, number, ttl)
  local before = redis.call('HLEN', key) - number
  if before == 0 and ttl then redis.call('EXPIRE', key, ttl) end
  if before <= MOST_FIELDS then return end
  for field in pairs(new) do
    local queue, kind, what = field:match('^([^\31]*)\31(.*)\31([^\31]*)$')
    if new[queue .. '\31' .. kind .. '\31us'] then
      redis.pcall('HINCRBY', key, queue .. '\31other\31' .. what, redis.call('HGET', key, field))
      redis.call('HDEL', key, field)
    end
  end
end

-- Add counts to a hash. That a field is new is seen by its sum, so that most calls ask nothing.
local function add(fields, key, ttl)
  local new, number = nil, 0
  for i = 1, #fields, 2 do
    if redis.pcall('HINCRBY', key, fields[i], fields[i + 1]) == fields[i + 1] then
      new, number = new or {}, number + 1
      new[fields[i]] = true
    end
  end
  if new then note_new(key, new, number, ttl) end
end

-- `packed` is msgpack: [[field, count, ...], seconds that the worker was busy, [slowest job, its seconds, ...], jobs that
-- finished, executions that did not]. `hash` is RQ's of the worker, in which RQ counts them too.
function statistics.count(packed, hash, worker, now)
  local fields, seconds, slowest, finished, others = unpack(cmsgpack.unpack(packed))
  local hour = math.floor(now / 3600)
  add(fields, 'pm:stats:total')
  add(fields, 'pm:stats:minute:' .. math.floor(now / 60), MINUTE_TTL)
  add(fields, 'pm:stats:hour:' .. hour, HOUR_TTL)
  if redis.pcall('HEXISTS', hash, 'birth') == 1 then
    redis.pcall('HINCRBY', hash, 'successful_job_count', finished)
    redis.pcall('HINCRBY', hash, 'failed_job_count', others)
    redis.pcall('HINCRBYFLOAT', hash, 'total_working_time', seconds)
  end
  local busiest, slow = 'pm:top:busiest:' .. hour, 'pm:top:slowest:' .. hour
  local sum = redis.pcall('ZINCRBY', busiest, seconds, worker)
  if type(sum) == 'string' and tonumber(sum) - seconds < 0.000001 then -- a worker that is new this hour
    redis.call('ZREMRANGEBYRANK', busiest, 0, -MOST_MEMBERS - 1)
    redis.call('EXPIRE', busiest, HOUR_TTL)
  end
  if #slowest > 0 then
    for i = 1, #slowest, 2 do redis.pcall('ZADD', slow, 'GT', slowest[i + 1], slowest[i]) end
    redis.pcall('ZREMRANGEBYRANK', slow, 0, -MOST_MEMBERS - 1)
    redis.call('EXPIRE', slow, HOUR_TTL)
  end
end

return statistics
