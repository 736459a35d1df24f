-- Examining: a job that is to be claimed and is not plain, or whose claim is repeated. finish_and_claim.lua describes a
-- job in the reply.
-- requires: coordination/redis/clock, jobs/guarded, jobs/records, this_claim
-- may use: jobs/callbacks, jobs/corrupt, jobs/groups, jobs/limits, jobs/singletons, jobs/text, pausing

local examining = {}

local EXPIRES_AT, UNKNOWN_SINCE, LAST_RARE = 10, 16, 21 -- of the fields that `take` reads: few jobs have the 4th to 21st

-- The fields that few jobs have, or false if this one has none.
local function rare_of(id, values)
  for i = 4, LAST_RARE do
    if values[i] then
      for _, at in ipairs({EXPIRES_AT, UNKNOWN_SINCE}) do values[at] = clock.seconds_to(values[at]) end
      local rare = {unpack(values, 4, LAST_RARE)}
      if values[LAST_RARE] then rare[LAST_RARE - 2] = records.get(id, 'repeat_intervals') or false end
      return rare
    end
  end
  return false
end

-- Whether a queued job may run now: its batch is not paused, and it gets its slots and tokens.
local function may_run(id, number, values)
  local queue, group, needs, batch = values[1], values[12] or values[13], values[13], values[14]
  if batch and not this_claim.is_plain and pausing.holds(batch) then
    if group then this_claim.has_followed = groups.leave(queue or '', group, id) or this_claim.has_followed end
    guarded.call('RPUSH', 'pm:batch:' .. batch .. ':held', id)
    if needs then singletons.goes_back(id, needs, 0) end -- a newer one must find it there
    return false
  elseif not group or not queue then
    return true
  end
  local may, follows = limits.claim(queue, group, needs, id, this_claim.holder, number)
  this_claim.has_followed, this_claim.has_blocked = this_claim.has_followed or follows, this_claim.has_blocked or not may
  return may
end

-- Add a job to the reply under this number; its execution, if it may run and its record is intact.
function examining.take(id, number)
  local execution, again = this_claim.id .. '-' .. number, this_claim.again
  local is_callback = records.is_callback(execution)
  local values = records.read(id, 'origin', 'data', 'timeout',
    'result_ttl', 'failure_ttl', 'retries_left', 'retry_intervals', 'attempts', 'enqueue_at_front_on_retry', 'expires_at',
    'checkpoint', 'group', 'limits', 'batch', 'trace', 'unknown_since', 'success_callback_name', 'failure_callback_name',
    'stopped_callback_name', 'webhooks', 'repeats_left', 'status', 'enqueued_at')
  if values.err or not values[2] then
    -- A record that expired or was deleted while its id waited is no loss, but half a record is.
    if records.exists(id) then corrupt.set_aside(id, values.err or 'the record holds no data') end
    return false
  end
  if id:find('[\128-\255]') and not text.is_valid(id) then
    corrupt.set_aside(id, 'its id is not valid UTF-8')
    return false
  end
  local queue, status = values[1], values[LAST_RARE + 1] or 'queued'
  local waits = status == 'queued' or status == 'created'
  if values[UNKNOWN_SINCE] and not again then callbacks.leave(id, queue, waits) end
  if is_callback or not waits then
    local due = again and execution or execution .. 'c'
    local row, group = callbacks.claim(id, status, due, again), values[12] or values[13]
    if row then
      this_claim.add(id, due, queue, '', values[3], false, values[LAST_RARE + 2], row)
    elseif not again and group then -- a cancel left its id there, or somebody added it twice
      this_claim.has_followed = groups.leave(queue or '', group, id) or this_claim.has_followed
    end
    if row or is_callback or not again then return row and due end
  end
  if not again and not may_run(id, number, values) then return false end -- it was allowed to run before
  local room = this_claim.rooms[queue]
  if room then room.begun = room.begun + 1 end
  this_claim.add(id, execution, queue, values[2], values[3], rare_of(id, values), values[LAST_RARE + 2], false)
  return execution
end

-- Add the jobs to the reply that the claim took when it was sent before.
function examining.take_again(claims, claim_id)
  local claimed = redis.call('HGETALL', claims)
  for i = 1, #claimed, 2 do
    local number = claimed[i + 1]:sub(#claim_id + 2)
    if claimed[i + 1] == claim_id .. '-' .. number then
      if not examining.take(claimed[i], number) then redis.call('HDEL', claims, claimed[i]) end -- it was deleted
    end
  end
end

return examining
