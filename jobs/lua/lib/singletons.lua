-- Singletons with the policy "replace".
-- requires: batches, coordination/redis/clock, events, groups, guarded, limits, queues, records

local singletons = {}

local call = guarded.call

-- A new job of a singleton with the policy "replace": cancel the waiting jobs, and stop the running one.
function singletons.replace(queue, group, fields)
  for i = 1, #fields, 2 do
    local limit = fields[i] == 'limits' and limits.parse(fields[i + 1])[1] or {}
    if limit[4] == 'replace' then
      local waiting = call('LRANGE', groups.members_of(queue, group), 0, -1)
      waiting[#waiting + 1] = call('HGET', 'pm:groups:' .. queue, group) or nil
      call('DEL', groups.members_of(queue, group))
      for _, id in ipairs(waiting) do
        if records.get(id, 'status') == 'queued' then
          queues.remove(queue, id)
          call('HSET', records.key(id), 'status', 'canceled')
          call('ZADD', 'rq:canceled:' .. queue, clock.second, id)
          events.emit('canceled', id, queue, nil, {reason = 'replaced'})
          batches.ended(id, 'c')
        end
      end
      call('HDEL', 'pm:groups:' .. queue, group)
      call('ZREM', 'pm:blocked:' .. limit[2], queue .. '\n' .. group)
      local running, holder = unpack(call('HGETALL', 'pm:holders:' .. limit[2]))
      local worker = running and holder:match('^(.*) ')
      if worker then
        call('PUBLISH', 'rq:pubsub:' .. worker, cjson.encode({command = 'stop-job', job_id = running}))
      end
    end
  end
end

return singletons
