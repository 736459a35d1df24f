-- Guarded calls: a key of an unexpected type, or a stream with the last possible id, is set aside, since an error halfway
-- through a script would lose the ids that it has taken.
-- may use: quarantine

local guarded = {}

-- Call a command. If the key can't be used, call it again on an empty one.
function guarded.call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if reply.err:find('WRONGTYPE', 1, true) or reply.err:find('last possible ID', 1, true) then quarantine.move(key, reply.err) end
  return redis.call(command, key, ...)
end

return guarded
