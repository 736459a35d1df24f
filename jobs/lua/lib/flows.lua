-- Flows: batches whose jobs, the nodes, wait for each other. What happens to a node reaches those behind it in steps, in
-- order and once each.
-- requires: coordination/redis/clock, counting, flow_nodes, guarded
-- may use: corrupt, deferring, ending, giving
--
-- pm:batch:<id>:nodes     a hash of name to numbers (flow_nodes.lua); "start" is what the first nodes wait for
-- pm:batch:<id>:children  a hash of "<name>/<chunk>" to the names behind it, each with its edge's letter in front: "s"
--                         if a failure stops it, "g" if it goes on, "r" if it runs only then
-- pm:batch:<id>:ahead     a list of changes to work off: "<name> <state before> <state> <chunk>", the last chunk first

local flows = {}

local call = guarded.call
local EDGES_A_CALL, WEEK = 200, 604800
local left = EDGES_A_CALL -- that this call still follows
local function key_of(flow) return 'pm:batch:' .. flow end
local function id_of(flow, name) return name:sub(1, 6) == 'batch:' and name or flow .. '-' .. name end

local begin -- of a flow within this one

-- Do what the numbers of a node say: it was decided otherwise before, unless it has waited until now.
function flows.decide(flow, name, was, is)
  local id = id_of(flow, name)
  if id == name then return begin(id:sub(7), is) end
  if was == 'c' or was == 's' then deferring.again(id, 'canceled') end
  if is == 'p' then return end
  local fields, found = deferring.take(id)
  if fields and is == 'd' then
    deferring.enqueue(id, fields, giving.fields(flow, fields[6]))
  elseif fields then
    ending.cancel(id, fields[1], 'flow')
    ending.keep(id, tonumber(redis.pcall('HGET', key_of(flow), 'keep')) or WEEK) -- so that a retry finds it
    if is == 's' then counting.note(id, 's', flow) end
  elseif found.err then
    corrupt.set_aside(id, found.err)
    counting.note(id, 'f', flow)
  elseif not found[2] then
    counting.note(id, 'c', flow) -- its record is gone
  end
end

-- Let one chunk of a node's children know that it has changed.
local function follow(flow, field, before, state)
  local nodes, names, edges, changed, decisions = key_of(flow) .. ':nodes', {}, {}, {}, {}
  for edge, name in (call('HGET', key_of(flow) .. ':children', field) or ''):gmatch('(%l)(%S+)') do
    names[#names + 1], edges[#edges + 1] = name, edge
  end
  left = left - math.max(1, #names)
  local found = #names > 0 and call('HMGET', nodes, unpack(names)) or {}
  for i, name in ipairs(names) do
    local numbers = flow_nodes.parse(found[i])
    if numbers then
      local was = flow_nodes.verdict(numbers)
      flow_nodes.add(numbers, edges[i], before, -1)
      flow_nodes.add(numbers, edges[i], state, 1)
      changed[#changed + 1], changed[#changed + 2] = name, table.concat(numbers, ' ')
      local is = flow_nodes.verdict(numbers)
      if was ~= is then decisions[#decisions + 1] = {name, was, is} end
    end
  end
  if #changed > 0 then call('HSET', nodes, unpack(changed)) end
  for _, each in ipairs(decisions) do flows.decide(flow, unpack(each)) end
end

-- Work off changes, as far as this call may.
function flows.go_on(flow)
  local ahead = key_of(flow) .. ':ahead'
  while true do
    local item = call('LINDEX', ahead, 0)
    if not item then return end
    if left <= 0 then
      counting.unfinished[flow] = true
      return call('ZADD', 'pm:parents', 'NX', clock.now, 'batch:' .. flow) -- until someone has gone on
    end
    local name, before, state, chunk = item:match('^(%S+) (%l) (%l) (%d+)$')
    chunk = tonumber(chunk) or 0
    if chunk > 0 then follow(flow, name .. '/' .. chunk, before, state) end
    if chunk > 1 then
      call('LSET', ahead, 0, table.concat({name, before, state, chunk - 1}, ' '))
    else
      call('LPOP', ahead)
    end
  end
end

-- Nodes have changed: `before` has the states of `ids` until now, `states` the new ones by id.
function flows.change(flow, numbers, ids, before, states)
  for i, id in ipairs(ids) do
    local known, name = unpack(numbers[id] or {})
    if known and known[6] > 0 and before[i] and before[i] ~= states[id] then
      call('RPUSH', key_of(flow) .. ':ahead', table.concat({name, before[i], states[id], known[6]}, ' '))
    end
  end
  if next(numbers) then flows.go_on(flow) end
end

-- The start of a flow is reached ("d"), or never will be ("c" or "s"), or is waited for again ("p").
begin = function(flow, state)
  local key = key_of(flow)
  local before = redis.pcall('HGET', key, 'start')
  if before ~= 'p' and before ~= 'c' and before ~= 's' or before == state then return end -- or it has begun
  redis.call('HSET', key, 'start', state)
  local numbers = flow_nodes.parse(call('HGET', key .. ':nodes', 'start'))
  if numbers then call('RPUSH', key .. ':ahead', table.concat({'start', before, state, numbers[6]}, ' ')) end
  flows.go_on(flow)
end
flows.begin = begin

return flows
