-- Gathering: what the jobs of a call write to the same key becomes one command.
-- requires: guarded

local gathered = {}

local commands = {}

function gathered.add(command, key, first, second)
  local keys = commands[command] or {}
  commands[command] = keys
  local values = keys[key] or {}
  keys[key] = values
  values[#values + 1] = first
  values[#values + 1] = second
end

function gathered.write()
  for command, keys in pairs(commands) do
    for key, values in pairs(keys) do
      guarded.call(command, key, unpack(values))
    end
  end
  commands = {}
end

return gathered
