-- Enqueueing: store the new jobs of a call that nothing keeps out. enqueue.lua describes runs of jobs.
-- requires: caller, coordination/redis/clock, counting, events, gone, queues, records, storing
-- may use: batch_members, batches, ending, knowing, placing, scheduled, uniqueness, withdrawal

local enqueueing = {}

local now, NONE = clock.now, {}
local added = {} -- the new jobs of the call's batch
local joined, has_taken, has_scheduled

-- Why the batch of a run takes no more jobs, or nothing. It is asked once, before the call's first new job is placed.
local function refusal(batch)
  if joined then return end
  joined = batch
  return batch_members.refusal(batch)
end

-- Enqueue the jobs of a run, whose payloads begin behind `payloads[before + 1]`, and add their replies. The reason why
-- their batch takes none, or nothing.
local function enqueue(run, places, payloads, before, replies)
  local queue, place, _, batch, _, ids, owns, priority = unpack(run, 1, 8)
  local keys = {}
  for i, id in ipairs(ids) do
    keys[2 * i - 1], keys[2 * i] = records.key(id), gone.key(id)
  end
  local all_new = redis.call('EXISTS', unpack(keys)) == 0
  local waits_in_list = place == 'back' or place == 'front'
  local is_unique_or_grouped = owns and (owns[1][3] or owns[1][4]) -- then all jobs of the run are
  if all_new and waits_in_list and not is_unique_or_grouped then -- nothing keeps any of them out
    local why = batch and refusal(batch)
    if why then return why end
    queues.push_all(queue, ids, place == 'back' and 'RPUSH' or 'LPUSH', priority)
    queues.register(queue)
    for i, id in ipairs(ids) do
      storing.store(run, id, owns and owns[i], payloads[before + i + 1], now)
      if batch then added[#added + 1] = id end
    end
    return
  end
  for i, id in ipairs(ids) do
    local own = owns and owns[i] or NONE
    local call, when, key_of = unpack(own, 1, 3)
    local key, rule, seconds, limit = unpack(key_of or NONE)
    local due = place == 'in' and now + when or place == 'at' and when or place ~= 'held' and now or 0
    local reply, is_free, replaced, origin, since
    if not all_new then reply, is_free = knowing.find(id, call or '') end
    if key and not reply then
      reply, origin, since = uniqueness.holder(places, key, rule)
      if rule == 'debounce' then
        replaced, reply = reply, nil
        since = since or now
        due = limit > 0 and math.min(due, since + limit) or due
      end
    end
    if not reply then
      local why = batch and refusal(batch)
      if why then return why end
      if is_free then
        withdrawal.forget(id)
        ending.delete(id)
      end
      placing.place(run, replaced or id, own, due, replaced and origin)
      if replaced then -- its id and place stay, its record doesn't
        redis.call('DEL', records.key(replaced))
        gone.into(id, replaced)
      end
      storing.store(run, replaced or id, own, payloads[before + i + 1], due, since)
      if batch then added[#added + 1] = id end
      if key then
        uniqueness.take(places, key, replaced or id, rule, seconds)
        has_taken = true
      end
      has_scheduled = has_scheduled or place == 'at' or place == 'in'
    end
    if reply or replaced then
      replies[#replies + 1] = before + i
      replies[#replies + 1] = reply or replaced
    end
  end
end

-- Enqueue all jobs of `packed`; the payload of the first is `payloads[2]`. The reply is enqueue.lua's.
function enqueueing.all(places, packed, payloads)
  local replies, count = {}, 0
  for _, run in ipairs(cmsgpack.unpack(packed)) do
    caller.at = run[3][2] -- the first field is created_at
    local why = enqueue(run, places, payloads, count, replies)
    if why then return redis.error_reply('BATCH ' .. why) end
    count = count + #run[6]
  end
  if has_taken then uniqueness.give_up_others(places) end
  if has_scheduled then scheduled.notify() end
  if added[1] then batch_members.add(joined, added) end
  if next(counting.noted) then batches.count_noted() end -- jobs that were replaced, which may be of this call
  events.write()
  return replies
end

return enqueueing
