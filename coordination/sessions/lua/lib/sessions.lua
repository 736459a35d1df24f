-- Sessions: hashes with the user, instants and what else is known; each expires when it was idle for too long.
-- requires: coordination/redis/clock, hashes, endings

local sessions = {}

local FIELDS = 'user by after begun seen ends origin agent data'

-- The fields by their names; nothing if the session is over or garbage. `endings_prefix` .. `by` is the key at which
-- the end of all its user's sessions is noted.
function sessions.read(key, endings_prefix)
  local names, found = {}, {}
  for name in string.gmatch(FIELDS, '%w+') do names[#names + 1] = name end
  local values = hashes.read(key, unpack(names))
  for at, name in ipairs(names) do found[name] = values[at] or '' end
  local begun, seen, ends = tonumber(found.begun), tonumber(found.seen), tonumber(found.ends)
  if not (found.by ~= '' and begun and seen and ends and ends > clock.now) then return end
  if endings.is_over(endings_prefix .. found.by, found.after) then return end
  return found
end

-- What a caller gets of a session.
function sessions.shown(hash, found)
  return {hash, found.user, found.begun, found.seen, found.ends, found.origin, found.agent, found.data}
end

-- Let a session go on for `idle_ms` from now, but not beyond its end.
function sessions.extend(key, ends, idle_ms)
  redis.call('PEXPIRE', key, math.ceil(math.min(idle_ms, (ends - clock.now) * 1000)))
end

return sessions
