-- Traces of jobs whose records are gone: a repeated enqueue of such a job enqueues nothing.
-- requires: records
--
-- pm:gone:<id>  the call that enqueued it, or ">" and the job that it was debounced into

local gone = {}

local SECONDS = 60 -- how late a repeated enqueue may arrive

function gone.key(id) return 'pm:gone:' .. id end

-- Note a job whose record will live for `ttl` seconds.
function gone.note(id, ttl)
  if ttl < 0 or ttl >= SECONDS then return end
  redis.call('SET', gone.key(id), records.get(id, 'call') or '', 'EX', SECONDS)
end

-- Note a job that replaced the one called `target`, under that one's id.
function gone.into(id, target) redis.call('SET', gone.key(id), '>' .. target, 'EX', SECONDS) end

-- What is known of a job that `call` enqueues: 0 if it is the same, the job that it was debounced into, or nothing.
function gone.find(id, call)
  local trace = redis.call('GET', gone.key(id))
  return trace == call and 0 or trace and trace:match('^>(.+)')
end

return gone
