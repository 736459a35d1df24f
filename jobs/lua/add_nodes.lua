-- Add nodes to a flow that has begun, all behind the same others, which may have ended.
-- requires: enqueueing, events, guarded, memory
-- may use: batches, growing
--
-- KEYS[1]  the places of unique jobs    KEYS[2]  the flow's jobs with their states    KEYS[3]  the flow's nodes
-- ARGV[1]  and those that follow but the last: as enqueue.lua has them
-- ARGV[#]  msgpack: [flow, names, {parent: letter, ...}, {taken parent: 1, ...}]
-- Returns  an error that begins with FULL, with BATCH if the flow takes no more jobs, or with NODE and the name of a
--          parent that it doesn't have; 0 if the first node was added before, otherwise 1

local places, states, nodes = KEYS[1], KEYS[2], KEYS[3]
local jobs, payloads, packed = ARGV[1], ARGV, ARGV[#ARGV]

local flow, names, letters, taken = unpack(cmsgpack.unpack(packed))

-- The states of the parents by their names, or nothing and the name of one that is not there.
local function states_of_parents()
  local found = {}
  for parent in pairs(letters) do
    local id = parent:sub(1, 6) == 'batch:' and parent or flow .. '-' .. parent
    found[parent] = guarded.call('HGET', states, id)
    if not found[parent] then return nil, parent end
  end
  return found
end

local full = memory.refusal()
if full then return full end
if guarded.call('HEXISTS', nodes, names[1]) == 1 then return 0 end
local found, missing = states_of_parents()
if not found then return redis.error_reply('NODE ' .. missing) end
local reply = enqueueing.all(places, jobs, payloads)
if reply.err then return reply end
growing.add(flow, names, letters, found, taken)
batches.count_noted()
events.write()
return 1
