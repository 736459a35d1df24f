-- Suppressions: the addresses and domains that get no mail.
-- requires: coordination/redis/clock, jobs/text
-- may use: jobs/guarded
--
-- pm:mail-suppressed  hash of addresses, and of "@" with a domain, to msgpack lists: reason, source, since and until in
--                     Unix seconds, 0 for ever

local suppressions = {}

local UNREADABLE = 'suppressed for a reason that is unreadable'

-- Why an address gets no mail, or nothing. What is unreadable suppresses, too.
function suppressions.reason(list, address, domain)
  for _, name in ipairs({address, '@' .. domain}) do
    local packed = redis.pcall('HGET', list, name)
    if type(packed) == 'string' then
      local is_read, found = pcall(cmsgpack.unpack, packed)
      if not is_read or type(found) ~= 'table' or type(found[1]) ~= 'string' then return UNREADABLE end
      if not text.is_valid(found[1]) then return UNREADABLE end
      local ends = tonumber(found[4]) or 0
      if ends == 0 or not (ends <= clock.now) then return found[1] end -- what is not a number ends never
      redis.call('HDEL', list, name)
    elseif packed then
      return UNREADABLE -- the list is of another type
    end
  end
end

-- Add an address or domain for so many seconds, or for ever if they are 0. One that stays longer stays as it is.
function suppressions.add(list, name, reason, source, seconds)
  local packed = guarded.call('HGET', list, name)
  local is_read, found = pcall(cmsgpack.unpack, packed or '')
  local old = is_read and type(found) == 'table' and tonumber(found[4]) or -1
  local ends = seconds == 0 and 0 or math.floor(clock.now + seconds)
  if old == 0 or (ends ~= 0 and old >= ends) then return false end
  guarded.call('HSET', list, name, cmsgpack.pack({reason, source, math.floor(clock.now), ends}))
  return true
end

return suppressions
