-- Go on with a flow in which a change has yet to reach nodes. Calling it at any time does no harm.
-- requires: caller, counting, events, guarded
-- may use: batches, flows
--
-- KEYS[1]  the flow    KEYS[2]  what has ended and is still to be followed
-- ARGV[1]  the flow    ARGV[2]  now as RQ's text
-- Returns  1 if there is more to do, otherwise 0

local key, parents = KEYS[1], KEYS[2]
local flow, now_text = ARGV[1], ARGV[2]

caller.at = now_text
if redis.call('EXISTS', key) == 1 then flows.go_on(flow) end
batches.count_noted()
local has_more = next(counting.unfinished) ~= nil
if not has_more then guarded.call('ZREM', parents, 'batch:' .. flow) end
events.write()
return has_more and 1 or 0
