-- The events of jobs. A script emits an event for each change and writes them all at its end, so that each event has
-- happened and each change has an event.
-- requires: coordination/redis/clock
--
-- pm:events  a stream in the form of coordination/stream.py. An event is [type, job, queue, worker, at, details].

local events = {}

local EVENTS_AN_ENTRY, MOST_ENTRIES = 32, 10000
local now = clock.now
local emitted, count = {}, 0

-- `details` is a table of names and values, or nothing.
function events.emit(type, id, queue, worker, details)
  count = count + 1
  emitted[count] = {type, id, queue, worker or '', now, details}
end

-- Write what was emitted. A full memory refuses only the events: the changes that they report are already written.
function events.write()
  for first = 1, count, EVENTS_AN_ENTRY do
    local entry = cmsgpack.pack({unpack(emitted, first, math.min(first + EVENTS_AN_ENTRY - 1, count))})
    local written = redis.pcall('XADD', 'pm:events', 'MAXLEN', '~', MOST_ENTRIES, '*', 'e', entry)
    if written.err and not written.err:find('OOM', 1, true) then -- another type, or a stream with the last possible id
      redis.call('RENAME', 'pm:events', 'pm:broken:pm:events')
      redis.pcall('XADD', 'pm:events', '*', 'e', entry)
    end
  end
end

return events
