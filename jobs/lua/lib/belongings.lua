-- Belongings: keys of a job beside its record, which live and end with it.
-- requires: records
-- may use: steps
--
-- pm:log:<id>, pm:output:<id>  what the job said (worker/process/lua/lib/saying.lua)

local belongings = {}

-- The keys of what it said.
function belongings.of(id) return 'pm:log:' .. id, 'pm:output:' .. id end

-- All keys that a job may have beside its record.
function belongings.all(id) return 'rq:results:' .. id, 'pm:progress:' .. id, steps.key(id), belongings.of(id) end

local function expire(id, milliseconds)
  for _, key in ipairs({belongings.of(id)}) do
    if milliseconds <= 0 then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, milliseconds) end
  end
end

-- Keep its steps, and what it said, if there are any, for so many seconds, or for ever.
function belongings.keep(id, ttl)
  steps.keep(id, ttl)
  if records.get(id, 'said') then expire(id, ttl * 1000) end
end

-- Keep what it said for as long as its record is kept.
function belongings.follow(id)
  local left = redis.call('PTTL', records.key(id))
  if left == -2 then return redis.call('UNLINK', belongings.of(id)) end
  expire(id, left)
end

-- An ended job runs again, with its steps and its words.
function belongings.go_on(id)
  steps.go_on(id)
  belongings.follow(id)
end

return belongings
