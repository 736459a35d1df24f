-- Write some of the edges of a flow that has yet to begin. Sending it again writes the same.
-- requires: events, guarded, memory
-- may use: batch_members
--
-- KEYS[1]  the flow    KEYS[2]  its nodes    KEYS[3]  their children
-- ARGV[1]  the flow
-- ARGV[2]  msgpack: [[name, numbers, ...], [chunk, children, ...]], fields and values in turn, either may be empty
-- Returns  an error that begins with FULL or, if the flow was canceled, with BATCH; otherwise how many nodes are new

local key, nodes, children = KEYS[1], KEYS[2], KEYS[3]
local flow, packed = ARGV[1], ARGV[2]

local full = memory.refusal()
if full then return full end
local why = batch_members.refusal(flow)
if why then return redis.error_reply('BATCH ' .. why) end
if redis.pcall('HGET', key, 'sealed') then return 0 end -- this call is sent again
local numbers, edges = unpack(cmsgpack.unpack(packed))
if #edges > 0 then guarded.call('HSET', children, unpack(edges)) end
local new = #numbers > 0 and guarded.call('HSET', nodes, unpack(numbers)) or 0
events.write()
return new
