-- Enqueueing: store the new jobs of a call that nothing keeps out. enqueue.lua describes a job.
-- requires: caller, coordination/redis/clock, counting, events, gone, records, storing
-- may use: batch_members, batches, claimants, ending, scheduled, uniqueness, withdrawal

local enqueueing = {}

local now, NONE = clock.now, {}

-- The reply for a job that was enqueued before, or nothing. A canceled job keeps out only the call that enqueued it, but
-- all others too while it still runs: its end would count as the end of the new one.
local function known(id, call)
  if redis.call('EXISTS', records.key(id), gone.key(id)) == 0 then return end
  if records.exists(id) then
    local is_free = call ~= '' and records.get(id, 'status') == 'canceled' and records.get(id, 'call') ~= call
      and not claimants.find(id)
    return not is_free and 0, is_free
  end
  return gone.find(id, call)
end

-- Enqueue all jobs of `packed`; the payload of the first is `payloads[2]`. The reply is enqueue.lua's.
function enqueueing.all(places, packed, payloads)
  local replies, added, batch, has_taken = {}, {}, nil, false
  local jobs = cmsgpack.unpack(packed)
  if jobs[1] then caller.at = jobs[1][6][2] end -- the first field is created_at
  for i, job in ipairs(jobs) do
    local place, when = job[4], job[5]
    local key, rule, seconds, limit = unpack(job[7] or NONE)
    local due = place == 'in' and now + when or place == 'at' and when or place ~= 'held' and now or 0
    local reply, is_free = known(job[1], job[2])
    local replaced, origin, since
    if key and not reply then
      reply, origin, since = uniqueness.holder(places, key, rule)
      if rule == 'debounce' then
        replaced, reply = reply, nil
        since = since or now
        due = limit > 0 and math.min(due, since + limit) or due
      end
    end
    -- The same id twice in one call finds its own record, so that it is pushed once.
    if not reply then
      if job[9] and not batch then -- all jobs before this one were known: nothing has changed yet
        local why = batch_members.refusal(job[9])
        if why then return redis.error_reply('BATCH ' .. why) end
        batch = job[9]
      end
      if is_free then
        withdrawal.forget(job[1])
        ending.delete(job[1])
      end
      storing.store(job, payloads[i + 1], due, replaced, origin, since)
      if batch then added[#added + 1] = job[1] end
      if key then
        uniqueness.take(places, key, replaced or job[1], rule, seconds)
        has_taken = true
      end
    end
    replies[i] = reply or replaced or 1
  end
  if has_taken then uniqueness.give_up_others(places) end
  if storing.has_scheduled then scheduled.notify() end
  if batch then batch_members.add(batch, added) end
  if next(counting.noted) then batches.count_noted() end -- jobs that were replaced, which may be of this call
  events.write()
  return replies
end

return enqueueing
