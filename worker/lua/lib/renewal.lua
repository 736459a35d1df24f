-- Renewing leases. If all leases had ended, nobody could renew any, and whoever comes first must not judge the others:
-- a lull begins, in which no worker is rescued.
-- requires: coordination/redis/clock, jobs/guarded
--
-- pm:lull  exists during a lull

local renewal = {}

local LULL_MS = 4000 -- a few heartbeats

-- Renew the leases of workers, an array of names, until the instant `ends`.
function renewal.renew(leases, ends, workers)
  -- A full memory refuses a script's first write unless that frees some, and no lease may end because of that.
  guarded.call('ZREMRANGEBYRANK', leases, 1, 0)
  local newest = guarded.call('ZREVRANGE', leases, 0, 0, 'WITHSCORES')[2]
  if newest and tonumber(newest) < clock.now then redis.call('SET', 'pm:lull', '', 'PX', LULL_MS) end
  for _, worker in ipairs(workers) do redis.call('ZADD', leases, ends, worker) end
end

return renewal
