-- Flows: batches whose jobs, the nodes, wait for each other. What happens to a node reaches those behind it in steps, in
-- order and once each.
-- requires: coordination/redis/clock, counting, flow_nodes, guarded
-- may use: deciding, deferring
--
-- pm:batch:<id>:nodes     a hash of name to numbers (flow_nodes.lua); "start" is what the first nodes wait for
-- pm:batch:<id>:children  a hash of "<name>/<chunk>" to the names behind it, each with its edge's letter in front: "s"
--                         if a failure stops it, "g" if it goes on, "r" if it runs only then
-- pm:batch:<id>:ahead     a list of changes to work off: "<name> <state before> <state> <chunk>", the last chunk first

local flows = {}

local call = guarded.call
local EDGES_A_CALL, ITEMS_AT_ONCE = 200, 64
local left = EDGES_A_CALL -- that this call still follows
local function key_of(flow) return 'pm:batch:' .. flow end

local begin -- of a flow within this one

-- Do what the numbers of a node say: it was decided otherwise before, unless it has waited until now.
function flows.decide(flow, name, was, is)
  if name:sub(1, 6) == 'batch:' then return begin(name:sub(7), is) end
  if is ~= 'd' then left = left - 1 end -- that takes longer than an enqueue
  deciding.job(flow, flow .. '-' .. name, was, is)
end

-- Let changes, an array of {name, state before, state, chunk}, reach all nodes in these chunks. How many did.
local function follow(flow, items)
  local decisions, count, done = flow_nodes.change(flow, items)
  left = left - count - done
  for _, each in ipairs(decisions) do flows.decide(flow, unpack(each)) end
  if #decisions > 0 then deferring.push() end
  return done
end

-- Work off changes in order, each from its last chunk to its first, as far as this call may. Which is the first that is
-- not done; its chunk is the next one.
local function work(flow, items)
  local first = 1
  while first <= #items and left > 0 do
    local some, chunk = {items[first]}, items[first][4]
    while chunk == 1 and #some < ITEMS_AT_ONCE and (items[first + #some] or {})[4] == 1 do
      some[#some + 1] = items[first + #some]
    end
    local done = follow(flow, some)
    if chunk > 1 then items[first][4] = chunk - 1 else first = first + done end
  end
  return first
end

-- Go on with changes that are ahead, as far as this call may.
function flows.go_on(flow)
  local ahead = key_of(flow) .. ':ahead'
  while true do
    local items = {}
    for i, text in ipairs(call('LRANGE', ahead, 0, left > 0 and ITEMS_AT_ONCE - 1 or 0)) do
      local name, before, state, chunk = text:match('^(%S+) (%l) (%l) (%d+)$')
      items[i] = {name or '', before or '', state or '', tonumber(chunk) or 0}
    end
    if #items == 0 then return end
    if left <= 0 then
      counting.unfinished[flow] = true
      return call('ZADD', 'pm:parents', 'NX', clock.now, 'batch:' .. flow) -- until someone has gone on
    end
    local first = work(flow, items)
    call('LTRIM', ahead, first - 1, -1)
    if first <= #items then call('LSET', ahead, 0, table.concat(items[first], ' ')) end
  end
end

-- Changes of nodes, as `follow` has them, reach those behind, unless others are ahead of them: then they wait.
local function advance(flow, items)
  local ahead = key_of(flow) .. ':ahead'
  local first = call('EXISTS', ahead) == 0 and work(flow, items) or 1
  for i = first, #items do call('RPUSH', ahead, table.concat(items[i], ' ')) end
  flows.go_on(flow)
end

-- Nodes have changed: `before` has the states of `ids` until now, `states` the new ones by id.
function flows.change(flow, names, texts, ids, before, states)
  local items = {}
  for i, id in ipairs(ids) do
    local chunks = names[id] and flow_nodes.chunks(texts[id]) or 0
    if chunks > 0 and before[i] and before[i] ~= states[id] then
      items[#items + 1] = {names[id], before[i], states[id], chunks}
    end
  end
  advance(flow, items)
end

-- The start of a flow is reached ("d"), or never will be ("c" or "s"), or is waited for again ("p").
begin = function(flow, state)
  local key = key_of(flow)
  local before = redis.pcall('HGET', key, 'start')
  if before ~= 'p' and before ~= 'c' and before ~= 's' or before == state then return end -- or it has begun
  redis.call('HSET', key, 'start', state)
  local numbers = flow_nodes.parse(call('HGET', key .. ':nodes', 'start'))
  advance(flow, numbers and {{'start', before, state, numbers[6]}} or {})
end
flows.begin = begin

return flows
