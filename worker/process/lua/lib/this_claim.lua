-- This claim: what a call claims, and what it has found so far.

local this_claim = {}

-- The script sets these: the worker's claims, its holders' prefix, the claim's id, whether it was sent before, whether
-- nothing is paused or blocked, how many jobs are wanted, and how many ids that may not run a call looks at.
this_claim.claims, this_claim.holder, this_claim.id, this_claim.again, this_claim.is_plain = nil, nil, nil, nil, nil
this_claim.want, this_claim.looks = 0, 0

this_claim.count = 0 -- how many jobs were claimed
this_claim.reply = {0, false, 0, 0, false, false, false} -- what is in front of the jobs; a nil would end the reply
this_claim.rooms = {} -- of the queues that have a rate
this_claim.has_blocked = false
this_claim.has_hosts = false -- there are limits of which each host has slots of its own
this_claim.has_followed = false -- another job of a group is in the list now

-- Add a job to the reply. The reply is flat, because each list in it takes the server as long as a command.
function this_claim.add(id, execution, queue, data, timeout, rare, enqueued_at, due)
  local reply, last = this_claim.reply, #this_claim.reply
  reply[last + 1], reply[last + 2], reply[last + 3], reply[last + 4] = id, execution, queue, data
  reply[last + 5], reply[last + 6], reply[last + 7], reply[last + 8] = timeout, rare, enqueued_at, due
  this_claim.count = this_claim.count + 1
end

return this_claim
