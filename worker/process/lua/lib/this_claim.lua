-- This claim: what a call claims, and what it has found so far.

local this_claim = {}

-- The script sets these: the worker's claims, its holders' prefix, the claim's id, whether it was sent before, whether
-- nothing is paused or blocked, how many jobs are wanted, and how many ids that may not run a call looks at.
this_claim.claims, this_claim.holder, this_claim.id, this_claim.again, this_claim.is_plain = nil, nil, nil, nil, nil
this_claim.want, this_claim.looks = 0, 0

this_claim.jobs = {}
this_claim.rooms = {} -- of the queues that have a rate
this_claim.has_blocked = false
this_claim.has_followed = false -- another job of a group is in the list now

return this_claim
