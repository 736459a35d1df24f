-- Claiming: take ids from lists, and add those of jobs that may run to the reply. finish_and_claim.lua describes a job
-- there.
-- requires: jobs/gathered, jobs/queues, jobs/records, this_claim
-- may use: examining

local claiming = {}

local PLAIN_FIELDS = 7

-- Claim a job, if it may run. A record that has the fields of a plain job and no others, or besides only names its batch,
-- its unique key or its retries while nothing is paused, is read by their names alone.
function claiming.claim(id)
  local record, number, execution = records.key(id), this_claim.count + 1, nil
  local count = redis.pcall('HLEN', record)
  local has_one_more = count == PLAIN_FIELDS + 1 and this_claim.is_plain
  local values = count == PLAIN_FIELDS
    and redis.call('HMGET', record, 'origin', 'data', 'timeout', 'enqueued_at', 'status', 'created_at', 'description')
    or has_one_more and redis.call('HMGET', record, 'origin', 'data', 'timeout', 'enqueued_at', 'status', 'created_at',
      'description', 'batch', 'unique', 'retries_left')
  if values and values[1] and values[2] and values[3] and values[4] and values[5] == 'queued' and values[6] and values[7]
    and (not has_one_more or values[8] or values[9] or values[10]) and not id:find('[\128-\255]') then
    execution = this_claim.id .. '-' .. number
    local room = this_claim.rooms[values[1]]
    if room then room.begun = room.begun + 1 end
    local rare = has_one_more and (values[8] and {'batch', values[8]} or values[10] and {'retries_left', values[10]}) or false
    this_claim.add(id, execution, values[1], values[2], values[3], rare, values[4], false)
  else
    execution = examining.take(id, number, count)
  end
  if execution then gathered.add('HSET', this_claim.claims, id, execution) end -- the pool marks those that run for long
end

-- Claim jobs from a list, until enough are claimed, the list is empty, or too many ids may not run. The queue is given
-- if the list is one of its bands.
function claiming.from(list, queue)
  local room = next(this_claim.rooms) and this_claim.rooms[queue or queues.name(list)]
  repeat
    this_claim.has_followed = false
    local asked = math.min(this_claim.want - this_claim.count, room and room.free - room.begun or this_claim.want)
    local ids = asked > 0 and queues.take(list, asked) or {}
    for _, id in ipairs(ids) do claiming.claim(id) end
    this_claim.looks = this_claim.looks - #ids
    local goes_on = #ids > 0 and (this_claim.has_followed or #ids == asked) and this_claim.looks > 0
  until not goes_on
end

return claiming
