-- Read a stream's entries after a position, and tell whether entries in between were trimmed unread.
--
-- KEYS[1]  the stream
-- ARGV[1]  the id after which to read: "0-0" for all that is there
-- ARGV[2]  how many entries the stream had been given up to that one, "" if that isn't known
-- ARGV[3]  how many entries to read at most
-- Returns  the id to go on from, its number likewise ("" if unknown), how many entries were missed (-1: some may
--          have been), and the entries as id, value, id, value ...; a value is "" where an entry has none
--
-- An entry's number is what tells missed entries from none: a quiet stream loses its last entry to age, too.

local key, after, number, count = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

if redis.call('EXISTS', key) == 0 then
  return {'0-0', '0', 0, {}}
end

local function parts(id)
  local ms, sequence = id:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end

local function precedes(one, other)
  local ms, sequence = parts(one)
  local other_ms, other_sequence = parts(other)
  return ms < other_ms or (ms == other_ms and sequence < other_sequence)
end

local info = {}
local flat = redis.call('XINFO', 'STREAM', key)
for i = 1, #flat, 2 do
  info[flat[i]] = flat[i + 1]
end
local last, added = info['last-generated-id'], info['entries-added']
local trimmed = added and added - info['length']
-- A restarted server may have forgotten its last second, and a stream made anew begins anew.
if precedes(last, after) then
  after, number = last, added
end

local missed = 0
if number and trimmed then
  missed = math.max(0, trimmed - number)
  number = math.max(number, trimmed)
elseif after == '0-0' then
  number = trimmed
elseif trimmed ~= 0 and after ~= last then
  -- All from the first entry on is read now, so the number is known from here.
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if not first or precedes(after, first[1]) then
    missed, number = -1, trimmed
  end
end

local entries = {}
for _, entry in ipairs(redis.call('XRANGE', key, '(' .. after, '+', 'COUNT', count)) do
  local value = ''
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'e' then
      value = entry[2][i + 1]
    end
  end
  table.insert(entries, entry[1])
  table.insert(entries, value)
  after = entry[1]
end
if #entries / 2 < count then
  number = added
elseif number then
  number = number + count
end
return {after, number and string.format('%.0f', number) or '', missed, entries}
