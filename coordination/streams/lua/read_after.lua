-- Read a stream's entries after a position, and report whether entries in between were trimmed unread.
--
-- KEYS[1]  the stream
-- ARGV[1]  the id after which to read: "0-0" for all that is there
-- ARGV[2]  the number of that entry: how many had been added up to it; "" if unknown
-- ARGV[3]  the most entries to read
-- Returns  the id to continue from, its number ("" if unknown), how many entries were missed (-1: perhaps some), and
--          the entries as id, value, id, value ...; a value is "" if an entry has none
--
-- The number reveals missed entries even if the stream is empty: a quiet stream loses its last entry to age.

local key = KEYS[1]
local after, number, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

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
-- A restarted server may have forgotten its last second; a stream that was deleted and recreated starts over.
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
  -- Everything from the first entry on is read now, so the number is known from here.
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
