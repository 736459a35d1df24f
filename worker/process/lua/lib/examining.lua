-- Examining: a job that is to be claimed and is not plain, or whose claim is repeated. finish_and_claim.lua describes a
-- job in the reply.
-- requires: coordination/redis/clock, jobs/guarded, jobs/records, this_claim
-- may use: jobs/callbacks, jobs/corrupt, jobs/groups, jobs/limits, jobs/singletons, jobs/steps, jobs/text, pausing
-- may use: waiting_jobs

local examining = {}

local MOST_FIELDS = 300 -- of a record: RQ and we write some forty, and a hundred signals may be kept in it

-- What few jobs have in their records, and the worker needs.
local RARE = {
  attempts = true, batch = true, checkpoint = true, enqueue_at_front_on_retry = true, expires_at = true,
  failure_callback_name = true, failure_ttl = true, given = true, group = true, limits = true, repeat_intervals = true,
  recorded = true, repeats_left = true, result_ttl = true, retried_at = true, retries_left = true, retry_intervals = true,
  said = true, steps = true, stopped_callback_name = true, success_callback_name = true, takes = true, trace = true,
  unknown_since = true, webhooks = true,
}

-- The names and values of the fields that few jobs have, or false if this one has none.
local function rare_of(id, fields)
  if fields.steps then
    steps.keep(id, -1) -- RQ's requeue lets them expire
    fields.recorded = cmsgpack.pack(steps.read(id))
  end
  fields.expires_at, fields.unknown_since = clock.seconds_to(fields.expires_at), clock.seconds_to(fields.unknown_since)
  local rare = {}
  for name, value in pairs(fields) do
    if RARE[name] then rare[#rare + 1], rare[#rare + 2] = name, value end
  end
  return rare[1] and rare or false
end

-- Whether a queued job may run now: its batch is not paused, and it gets its slots and tokens.
local function may_run(id, number, fields)
  local queue, group, needs, batch = fields.origin, fields.group or fields.limits, fields.limits, fields.batch
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

-- Add a job to the reply under this number; its execution, if it may run and its record is intact. `count` is the reply
-- to HLEN of its record, if that was asked before.
function examining.take(id, number, count)
  local execution, again = this_claim.id .. '-' .. number, this_claim.again
  local is_callback = records.is_callback(execution)
  local fields = records.all(id, MOST_FIELDS, count)
  if fields.err or not fields.data then
    -- A record that expired or was deleted while its id waited is no loss, but half a record is.
    if records.exists(id) then corrupt.set_aside(id, fields.err or 'the record holds no data') end
    return false
  end
  if id:find('[\128-\255]') and not text.is_valid(id) then
    corrupt.set_aside(id, 'its id is not valid UTF-8')
    return false
  end
  local queue, status = fields.origin or false, fields.status or 'queued'
  local waits = status == 'queued' or status == 'created'
  if fields.unknown_since and not again then callbacks.leave(id, queue, waits) end
  if is_callback or not waits then
    local due = again and execution or execution .. 'c'
    local row, group = callbacks.claim(id, status, due, again), fields.group or fields.limits
    if row then
      this_claim.add(id, due, queue, '', fields.timeout or false, false, fields.enqueued_at or false, row)
    elseif not again and group then -- a cancel left its id there, or somebody added it twice
      this_claim.has_followed = groups.leave(queue or '', group, id) or this_claim.has_followed
    end
    if row or is_callback or not again then return row and due end
  end
  if not again and not may_run(id, number, fields) then return false end -- it was allowed to run before
  if fields.waits then waiting_jobs.wake(id, fields) end
  local room = this_claim.rooms[queue]
  if room then room.begun = room.begun + 1 end
  this_claim.add(id, execution, queue, fields.data, fields.timeout or false, rare_of(id, fields), fields.enqueued_at or false,
    false)
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
