-- Growing: a flow that has begun gets nodes behind others, which may have ended.
-- requires: flow_nodes, guarded
-- may use: deferring, flows, giving

local growing = {}

local call = guarded.call
local CHILDREN_A_CHUNK = 50 -- as in jobs/flow_plan.py
local TAKEN = 7

-- Add names to the children of a parent. If a change of it may be on its way to those that it has, the new ones have a
-- chunk of their own: what it is now is in their numbers already.
local function add_children(key, parent, numbers, letter, names, is_apart)
  for first = 1, #names, CHILDREN_A_CHUNK do
    local some = {}
    for i = first, math.min(first + CHILDREN_A_CHUNK - 1, #names) do some[#some + 1] = letter .. names[i] end
    local last = numbers[6] > 0 and not is_apart and call('HGET', key .. ':children', parent .. '/' .. numbers[6]) or ''
    local _, count = last:gsub('%S+', '')
    if last == '' or count + #some > CHILDREN_A_CHUNK then numbers[6], last = numbers[6] + 1, '' end
    call('HSET', key .. ':children', parent .. '/' .. numbers[6], last .. (last == '' and '' or ' ') .. table.concat(some, ' '))
  end
end

-- Add nodes, whose jobs are stored, behind parents: by name their letters, their states and whether their results are
-- taken.
function growing.add(flow, names, letters, states, taken)
  local key, own = 'pm:batch:' .. flow, {0, 0, 0, 0, 0, 0, 0}
  local is_busy = call('EXISTS', key .. ':ahead') == 1
  for parent, letter in pairs(letters) do
    local state = states[parent]
    local numbers = flow_nodes.parse(call('HGET', key .. ':nodes', parent)) or {0, 0, 0, 0, 0, 0, 0}
    if letter == 'r' then own[4] = own[4] + 1 end
    flow_nodes.add(own, letter, state, 1)
    add_children(key, parent, numbers, letter, names, is_busy)
    if taken[parent] then
      numbers[TAKEN] = 1
      if state == 'd' then giving.keep_last(flow, flow .. '-' .. parent) end
    end
    call('HSET', key .. ':nodes', parent, table.concat(numbers, ' '))
  end
  local text, verdict = table.concat(own, ' '), flow_nodes.verdict(own)
  for _, name in ipairs(names) do call('HSET', key .. ':nodes', name, text) end
  for _, name in ipairs(verdict ~= 'p' and names or {}) do flows.decide(flow, name, 'p', verdict) end
  if verdict == 'd' then deferring.push() end
end

return growing
