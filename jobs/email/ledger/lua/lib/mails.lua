-- Mails: what the ledger knows of a mail to one recipient. A mail in an open state is in the index of that state.
-- requires: coordination/redis/clock, jobs/guarded, jobs/text
-- may use: jobs/quarantine
--
-- pm:mail:<id>  msgpack list: state, recipient, reply, changed, job, is counted, origin (of accepted and refused mails it
--               ends here), execution, its claims, send, key, batch, began, tries, due, the
--               request by which a provider knows an unknown one again, or ""
-- pm:mails:<index>  sorted set of ids by when they leave it, at the latest
-- pm:mail-counts:<send>  hash of states to how many mails are in them

local mails = {}

-- States: r reserved, s sending, a accepted, x refused, d deferred, n suppressed, u unknown.
local INDEX_OF = {r = 1, s = 1, d = 2, n = 3, u = 4}
local FIELDS = {
  'state', 'recipient', 'reply', 'changed', 'job', 'counted', 'origin', 'execution', 'claims', 'send', 'key', 'batch',
  'began', 'tries', 'due', 'request',
}
local NUMBERS = {changed = true, counted = true, began = true, tries = true, due = true}
local LAST_OF_ENDED = 7
local MOST_BYTES = 4096
local PRUNED = 2 -- ids whose entries have expired, for each that is added
local UNREADABLE = 'what the ledger has of it is unreadable'

-- The script sets these: how long entries live, the key of the counts, and those of the indexes in the order above.
mails.life, mails.counts, mails.indexes = 0, nil, nil

-- The fields of an entry by their names, or nothing if they make no sense. What an ended one lacks is empty.
local function named(values)
  local found = {}
  for place, name in ipairs(FIELDS) do
    local value, kind = values[place], NUMBERS[name] and 'number' or 'string'
    if value == nil and place > LAST_OF_ENDED then value = kind == 'number' and 0 or '' end
    if type(value) ~= kind or value ~= value or (kind == 'string' and not text.is_valid(value)) then return nil end
    found[name] = value
  end
  return (INDEX_OF[found.state] or found.state == 'a' or found.state == 'x') and found
end

-- The entry under a key, or nothing. One that makes no sense is unknown, since nobody knows what was sent.
function mails.read(key)
  local packed = redis.pcall('GET', key)
  if not packed then return nil end
  local is_text = type(packed) == 'string' and #packed <= MOST_BYTES
  local is_read, values = pcall(cmsgpack.unpack, is_text and packed or '')
  local entry = is_read and type(values) == 'table' and named(values)
  if not entry then
    quarantine.note(key, UNREADABLE)
    entry = named({'u', '', UNREADABLE, 0, '', 0, ''})
    entry.is_broken = true
  end
  return entry
end

local counted, are_kept = {}, false

local function count(state, by)
  if state then counted[state] = (counted[state] or 0) + by end
end

-- Bring the counts into line with the entries that were written: a script's last word of them. Garbage counts nothing.
function mails.count()
  for state, by in pairs(counted) do
    if by ~= 0 then pcall(guarded.call, 'HINCRBY', mails.counts, state, by) end
  end
  if are_kept then redis.call('PEXPIRE', mails.counts, mails.life * 1000) end
end

local function enter(index, id)
  guarded.call('ZADD', index, clock.now + mails.life, id)
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', clock.now, 'LIMIT', 0, PRUNED)) do
    redis.call('ZREM', index, each)
  end
end

-- Write an entry that was in the state `before`, or in none, and bring index and counts into line.
function mails.write(key, entry, before)
  local values, id = {}, key:sub(#'pm:mail:' + 1)
  entry.changed = math.floor(clock.now)
  local old, new = INDEX_OF[before or ''], INDEX_OF[entry.state]
  for place = 1, new and #FIELDS or LAST_OF_ENDED do values[place] = entry[FIELDS[place]] end
  redis.call('SET', key, cmsgpack.pack(values), 'PX', mails.life * 1000)
  if old and old ~= new then redis.pcall('ZREM', mails.indexes[old], id) end
  if new and (old ~= new or before == 'u') then enter(mails.indexes[new], id) end
  if entry.counted == 1 and before ~= entry.state then
    count(before, -1)
    count(entry.state, 1)
    are_kept = true
  end
end

-- Forget an entry that stands for nothing any more.
function mails.drop(key, entry)
  redis.call('DEL', key)
  local old = INDEX_OF[entry.state]
  if old then redis.pcall('ZREM', mails.indexes[old], key:sub(#'pm:mail:' + 1)) end
  if entry.counted == 1 then count(entry.state, -1) end
end

-- Somebody asked for a mail: it's kept as long again.
function mails.renew(key, entry)
  redis.call('PEXPIRE', key, mails.life * 1000)
  are_kept = are_kept or entry.counted == 1
end

return mails
