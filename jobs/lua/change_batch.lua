-- Seal, pause, resume or stop a batch. A stopped batch is paused and takes no more jobs. A flow that is sealed begins.
-- requires: caller, counting, events, guarded
-- may use: batches, flow_nodes, flows, holding, recounting
--
-- KEYS[1]  the batch    KEYS[2]  the set of paused batches
-- ARGV[1]  the batch    ARGV[2]  "seal", "pause", "resume" or "stop"    ARGV[3]  now as RQ's text
-- Returns  "" if there is no such batch, "ended" if it has ended, "same" if nothing had to change, "more" if more
--          held jobs must go back or a change of a flow has yet to reach nodes, otherwise "changed"

local key, paused = KEYS[1], KEYS[2]
local batch, change, now_text = ARGV[1], ARGV[2], ARGV[3]

local call = guarded.call
caller.at = now_text
local fields = redis.pcall('HMGET', key, 'created', 'ended', 'total', 'start', 'parent')
if not fields[1] then return '' end
if fields[2] then return 'ended' end

local changed, start, parent = 0, fields[4], fields[5]

-- Whether the batch is a node of another flow, which begins it.
local function is_node() return parent and flow_nodes.verdict_on(parent, 'batch:' .. batch) end

if change == 'seal' then
  changed = redis.call('HSET', key, 'sealed', '1')
  batches.settle(batch)
  if start and not is_node() then flows.begin(batch, 'd') end
  if start then flows.go_on(batch) end
elseif change == 'stop' then
  changed = redis.call('HSET', key, 'stopped', '1', 'sealed', '1')
  call('SADD', paused, batch) -- so that none of its jobs starts before it is canceled
  if tonumber(fields[3] or 0) ~= call('HLEN', key .. ':jobs') then recounting.begin(batch) end
  batches.settle(batch)
  if start and not is_node() then flows.begin(batch, 'c') end -- if it has yet to begin, it never will, even if retried
elseif change == 'pause' then
  changed = call('SADD', paused, batch)
else
  changed = call('SREM', paused, batch)
  if holding.give_back(batch) then changed = 'more' end
end
batches.count_noted()
events.write()
return (changed == 'more' or next(counting.unfinished)) and 'more' or changed == 0 and 'same' or 'changed'
