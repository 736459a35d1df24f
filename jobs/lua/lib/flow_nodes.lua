-- The nodes of a flow: the numbers that are kept of each, and what they say of it.
-- requires: guarded

local flow_nodes = {}

local call = guarded.call
local PATTERN = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'
local ENOUGH, MOST = 100, 500 -- nodes that a look changes; a chunk has fifty, unless it is garbage

-- A node's numbers: parents that have yet to end; those that failed or were canceled and stop it; those that were
-- skipped and stop it; parents whose failure it is there for, and how many of them failed; the chunks of its children;
-- and 1 if one of these takes its result.
function flow_nodes.parse(text)
  local waits, stops, skips, wanted, failures, chunks, is_taken = (text or ''):match(PATTERN)
  return waits and {tonumber(waits), tonumber(stops), tonumber(skips), tonumber(wanted), tonumber(failures), tonumber(chunks),
    tonumber(is_taken)} or nil
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

-- The names of the nodes among some jobs of a batch, and the texts of their numbers, both by id.
function flow_nodes.among(flow, ids)
  local nodes, names, name_of, texts = {}, {}, {}, {}
  for _, id in ipairs(ids) do
    if flow_nodes.may_be(flow, id) then
      nodes[#nodes + 1], names[#names + 1] = id, id:sub(1, 6) == 'batch:' and id or id:sub(#flow + 2)
    end
  end
  local found = #nodes > 0 and call('HMGET', 'pm:batch:' .. flow .. ':nodes', unpack(names)) or {}
  for i, id in ipairs(nodes) do name_of[id], texts[id] = names[i], found[i] end
  return name_of, texts
end

-- The verdict on one job of a batch, or nothing if it's no node.
function flow_nodes.verdict_on(flow, id)
  local _, texts = flow_nodes.among(flow, {id})
  local numbers = flow_nodes.parse(texts[id])
  return numbers and flow_nodes.verdict(numbers)
end

-- The chunks of a node's children, and whether its result is taken, from the text of its numbers.
function flow_nodes.chunks(text) return tonumber((text or ''):match(' (%d+) %d+$')) or 0 end
function flow_nodes.is_taken(text) return (text or ''):sub(-2) == ' 1' end

-- Change the numbers of all nodes in some chunks, an array of {name, state before, state, chunk}: the share of the state
-- before is taken back, and the new one's is added. Which nodes that decides anew, an array of {name, verdict before,
-- verdict}; how many edges there were; and how many of the chunks, which are fewer if they have many.
function flow_nodes.change(flow, items)
  local key, fields, names, changes, changed, decisions, done = 'pm:batch:' .. flow, {}, {}, {}, {}, {}, 0
  for i, item in ipairs(items) do fields[i] = item[1] .. '/' .. item[4] end
  for i, text in ipairs(call('HMGET', key .. ':children', unpack(fields))) do
    if #names >= ENOUGH then break end
    done = i
    for edge, name in (text or ''):gmatch('(%l)(%S+)') do
      local of = changes[name]
      if not of and #names < MOST then
        of = {}
        names[#names + 1], changes[name] = name, of
      end
      if of then of[#of + 1], of[#of + 2] = edge, items[i] end
    end
  end
  for i, text in ipairs(#names > 0 and call('HMGET', key .. ':nodes', unpack(names)) or {}) do
    local name, of = names[i], changes[names[i]]
    local is_plain = #of == 2 and of[1] ~= 'r' and of[2][2] == 'p' and of[2][3] == 'd'
    local rest = is_plain and (text or ''):match('^1( 0 0 0 0 .+)$')
    local numbers = not rest and flow_nodes.parse(text)
    if rest then -- the last that it waits for has finished, as have all others: the same, but quicker
      changed[#changed + 1], changed[#changed + 2] = name, '0' .. rest
      decisions[#decisions + 1] = {name, 'p', 'd'}
    elseif numbers then
      local was = flow_nodes.verdict(numbers)
      for at = 1, #of, 2 do
        flow_nodes.add(numbers, of[at], of[at + 1][2], -1)
        flow_nodes.add(numbers, of[at], of[at + 1][3], 1)
      end
      changed[#changed + 1], changed[#changed + 2] = name, table.concat(numbers, ' ')
      local is = flow_nodes.verdict(numbers)
      if was ~= is then decisions[#decisions + 1] = {name, was, is} end
    end
  end
  if #changed > 0 then call('HSET', key .. ':nodes', unpack(changed)) end
  return decisions, #names, done
end

return flow_nodes
