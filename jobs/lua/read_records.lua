-- Read some fields of many records: for a caller of a thousand, commands of its own take longer than the reading.
--
-- KEYS[1]  the first record, and the others behind it    ARGV[1]  the first name of a field, and the others behind it
-- Returns  the values of the fields of each record; false for a key of another type

local records, names = KEYS, ARGV

local found = {}
for number, record in ipairs(records) do
  local values = redis.pcall('HMGET', record, unpack(names))
  found[number] = not values.err and values
end
return found
