-- Gathering: what the jobs of a call write to the same key becomes one command. Stands in front of acknowledge.lua;
-- it has no KEYS[1] of its own and Returns nothing.

local gathered = {}

local function gather(command, key, first, second)
  local keys = gathered[command] or {}
  gathered[command] = keys
  local values = keys[key] or {}
  keys[key] = values
  values[#values + 1] = first
  values[#values + 1] = second
end

local function write_gathered()
  for command, keys in pairs(gathered) do
    for key, values in pairs(keys) do
      local written = redis.pcall(command, key, unpack(values))
      if type(written) == 'table' and written.err then
        set_aside(key, written.err)
      end
    end
  end
  gathered = {}
end
