-- The nodes of a flow: the numbers that are kept of each, and what they say of it.
-- requires: guarded

local flow_nodes = {}

local call = guarded.call

-- A node's numbers: parents that have yet to end; those that failed or were canceled and stop it; those that were
-- skipped and stop it; parents whose failure it is there for, and how many of them failed; the chunks of its children;
-- and 1 if one of these takes its result.
function flow_nodes.parse(text)
  local numbers = {}
  for number in (text or ''):gmatch('%d+') do numbers[#numbers + 1] = tonumber(number) end
  return #numbers == 7 and numbers
end

-- What the numbers say of a node: "p" it waits, "d" it may run, "c" it is canceled, "s" it is skipped.
function flow_nodes.verdict(numbers)
  local waits, stops, skips, wanted, failures = unpack(numbers)
  if waits > 0 then return 'p' end
  return stops > 0 and 'c' or (skips > 0 or wanted > 0 and failures == 0) and 's' or 'd'
end

-- Add what a parent in this state means for a child.
function flow_nodes.add(numbers, edge, state, by)
  local at = state == 'p' and 1 or edge == 's' and ({f = 2, c = 2, s = 3})[state] or edge == 'r' and state == 'f' and 5
  if at then numbers[at] = numbers[at] + by end
end

-- Whether an id is made like that of a node. A node's name is what stands behind the flow's id and a dash, or
-- "batch:<id>" if it is a flow itself.
function flow_nodes.may_be(flow, id) return id:sub(1, #flow + 1) == flow .. '-' or id:sub(1, 6) == 'batch:' end

-- The numbers and names of the nodes among some jobs of a batch, by id.
function flow_nodes.numbers_of(flow, ids)
  local names, nodes, numbers = {}, {}, {}
  for _, id in ipairs(ids) do
    if flow_nodes.may_be(flow, id) then
      nodes[#nodes + 1], names[#names + 1] = id, id:sub(1, 6) == 'batch:' and id or id:sub(#flow + 2)
    end
  end
  local found = #nodes > 0 and call('HMGET', 'pm:batch:' .. flow .. ':nodes', unpack(names)) or {}
  for i, id in ipairs(nodes) do numbers[id] = {flow_nodes.parse(found[i]), names[i]} end
  return numbers
end

return flow_nodes
