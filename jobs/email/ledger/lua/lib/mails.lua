-- Mails: what the ledger knows of a mail to one recipient. A mail in an open state is in the index of that state.
-- requires: coordination/redis/clock
-- may use: jobs/guarded, jobs/quarantine
--
-- pm:mail:<id>  msgpack list: state, recipient, reply, changed, job, is counted, origin (of accepted and refused mails it
--               ends here), execution, its claims, send, key, batch, began, tries, due
-- pm:mails:<index>  sorted set of ids by when their entries expire
-- pm:mail-counts:<send>  hash of states to how many mails are in them

local mails = {}

-- States: r reserved, s sending, a accepted, x refused, d deferred, n suppressed, u unknown.
local INDEX_OF = {r = 1, s = 1, d = 2, n = 3, u = 4}
local FIELDS = {
  'state', 'recipient', 'reply', 'changed', 'job', 'counted', 'origin', 'execution', 'claims', 'send', 'key', 'batch',
  'began', 'tries', 'due',
}
local NUMBERS = {changed = true, counted = true, began = true, tries = true, due = true}
local LAST_OF_ENDED = 7
local MOST_BYTES = 4096
local PRUNED = 2 -- ids whose entries have expired, for each that is added
local UNREADABLE = 'what the ledger has of it is unreadable'

-- The script sets these: how long entries live, the key of the counts, and those of the indexes in the order above.
mails.life, mails.counts, mails.indexes = 0, nil, nil

local function broken(key, entry)
  quarantine.note(key, UNREADABLE)
  return entry
end

-- The entry under a key, or nothing. One that makes no sense is unknown, since nobody knows what was sent.
function mails.read(key)
  local packed = redis.pcall('GET', key)
  if not packed then return nil end
  local entry = {state = 'u', recipient = '', reply = UNREADABLE, job = '', origin = '', is_broken = true}
  for name in pairs(NUMBERS) do entry[name] = 0 end
  for _, name in ipairs({'execution', 'claims', 'send', 'key', 'batch'}) do entry[name] = '' end
  local is_text = type(packed) == 'string' and #packed <= MOST_BYTES
  local is_read, values = pcall(cmsgpack.unpack, is_text and packed or '')
  local found = {}
  if not is_read or type(values) ~= 'table' then values = {} end
  for place, name in ipairs(FIELDS) do
    local value = values[place]
    if value == nil and place > LAST_OF_ENDED then value = entry[name] end
    local is_fit = type(value) == (NUMBERS[name] and 'number' or 'string') and value == value
    if not is_fit then return broken(key, entry) end
    found[name] = value
  end
  if not INDEX_OF[found.state] and found.state ~= 'a' and found.state ~= 'x' then return broken(key, entry) end
  return found
end

local function count(state, by)
  if state then guarded.call('HINCRBY', mails.counts, state, by) end
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
  if new then enter(mails.indexes[new], id) end
  if entry.counted == 1 and before ~= entry.state then
    count(before, -1)
    count(entry.state, 1)
    redis.call('PEXPIRE', mails.counts, mails.life * 1000)
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
  if entry.counted == 1 then redis.call('PEXPIRE', mails.counts, mails.life * 1000) end
end

return mails
