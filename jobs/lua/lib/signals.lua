-- Signals: what was sent to a job by name, kept in its record until the job waits for it.
--
-- signal:<number>:<name>  a field of the record: the data, JSON; the one with the lowest number came first

local signals = {}

local function parse(field)
  local number, name = field:match('^signal:(%d+):(.*)$')
  return tonumber(number), name
end

-- The signal for which a job waits under this field of its steps, "signal:<name>" the first time; or nothing.
function signals.awaited(field) return field:match('^signal#?%d*:(.*)$') end

-- How many signals the `fields` of a record hold, how many bytes these take, and the last one's number.
function signals.count(fields)
  local count, bytes, last = 0, 0, 0
  for field, value in pairs(fields) do
    local number = parse(field)
    if number then count, bytes, last = count + 1, bytes + #value, math.max(last, number) end
  end
  return count, bytes, last
end

-- The field of the first signal of this name among the `fields` of a record, or nothing.
function signals.first(fields, name)
  local first, found
  for field in pairs(fields) do
    local number, its_name = parse(field)
    if its_name == name and (not first or number < first) then first, found = number, field end
  end
  return found
end

return signals
