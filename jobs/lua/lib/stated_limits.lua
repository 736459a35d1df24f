-- The limits that a job's record states.

local stated_limits = {}

local IS_KIND = {lock = true, slots = true, rate = true}
local PLACE_OF_COST = {slots = 4, rate = 5}

-- The key of a host's own slots. No quoted host contains the mark.
function stated_limits.of_host(line, host) return line .. '@' .. host end

local function is_number(value) return type(value) == 'number' and value >= 1 and value < 1e17 end

-- The limits in a text: {"lock", key, 1, policy}, {"slots", key, most, cost or nothing, "host" or nothing} and {"rate",
-- key, interval, capacity, cost or nothing}. Corrupt ones are left out; the worker will fail the job because of them.
-- `cost` is what the job takes of the limit, and never more than there can be; false for slots that all cost one. `line`
-- is the key under which groups wait. Each `host` has slots of its own, whose key is given if the host is.
function stated_limits.parse(text, host)
  local is_json, found = pcall(cjson.decode, text)
  local parsed = {}
  for _, limit in ipairs(is_json and type(found) == 'table' and found or {}) do
    local kind = type(limit) == 'table' and limit[1]
    local is_sound = IS_KIND[kind] and type(limit[2]) == 'string' and is_number(limit[3])
      and (kind ~= 'rate' or is_number(limit[4]))
    local cost = is_sound and limit[PLACE_OF_COST[kind]]
    if is_sound and (not cost or is_number(cost) and cost % 1 == 0) then
      local most = kind == 'rate' and math.floor(limit[4] / limit[3]) or limit[3]
      limit.cost = cost and math.max(1, math.min(cost, most)) or kind == 'rate' and 1
      limit.line, limit.is_hosted = limit[2], kind == 'slots' and cost and limit[5] == 'host'
      if limit.is_hosted and host then limit[2] = stated_limits.of_host(limit.line, host) end
      parsed[#parsed + 1] = limit
    end
  end
  return parsed
end

return stated_limits
