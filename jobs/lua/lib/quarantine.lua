-- The quarantine: notes of corrupt jobs and keys, for operators.
-- requires: caller, events
--
-- pm:quarantine  a list of JSON objects    pm:broken:<key>  what a key of an unexpected type held

local quarantine = {}

local MOST = 10000

-- Note a corrupt job or key.
function quarantine.note(id, reason)
  local note = {job_id = id, reason = reason, worker = caller.worker, at = caller.at}
  redis.pcall('RPUSH', 'pm:quarantine', cjson.encode(note))
  redis.pcall('LTRIM', 'pm:quarantine', -MOST, -1)
  events.emit('quarantined', id, '', note.worker, {reason = reason})
end

-- Note a key of an unexpected type, and move it out of the way.
function quarantine.move(key, reason)
  quarantine.note(key, reason)
  redis.call('RENAME', key, 'pm:broken:' .. key)
end

return quarantine
