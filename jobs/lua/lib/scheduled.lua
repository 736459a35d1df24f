-- Scheduled jobs: they wait for a time, at which the scheduler puts them in their queue.
-- requires: coordination/redis/clock, guarded

local scheduled = {}

local soonest = {} -- by queue, when the first job that this call schedules is due

function scheduled.key(queue) return 'rq:scheduled:' .. queue end

-- Remember that this call schedules a job.
function scheduled.due(queue, due) soonest[queue] = math.min(due, soonest[queue] or due) end

-- The leading scheduler looks once a second. Notify it of a job that is due earlier, if that is the first of its queue
-- and this user may publish.
function scheduled.notify()
  for queue, due in pairs(soonest) do
    local first = due < clock.now + 1
      and tonumber(guarded.call('ZRANGE', 'rq:scheduled:' .. queue, 0, 0, 'WITHSCORES')[2])
    if first and first >= due - 0.000001 then
      redis.pcall('PUBLISH', 'pm:scheduler', string.format('%.3f', math.max(0, due - clock.now)))
    end
  end
end

return scheduled
