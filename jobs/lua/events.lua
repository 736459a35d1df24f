-- The events of jobs. A script emits an event for each change and writes them all at its end, so that each event has
-- happened and each change has an event. Put in front of scripts; it has no KEYS[1] of its own and Returns nothing.
--
-- pm:events  a stream in the form of coordination/stream.py. An event is [type, job, queue, worker, at, details].

local EVENTS_AN_ENTRY, MOST_ENTRIES = 32, 10000
local script_began = redis.call('TIME')
local now = script_began[1] + script_began[2] / 1000000
local events, count = {}, 0

-- `details` is a table of names and values, or nothing.
local function emit(type, id, queue, worker, details)
  count = count + 1
  events[count] = {type, id, queue, worker or '', now, details}
end

-- A full memory refuses only the events: the changes that they report are already written.
local function write_events()
  for first = 1, count, EVENTS_AN_ENTRY do
    local entry = cmsgpack.pack({unpack(events, first, math.min(first + EVENTS_AN_ENTRY - 1, count))})
    local written = redis.pcall('XADD', 'pm:events', 'MAXLEN', '~', MOST_ENTRIES, '*', 'e', entry)
    if written.err and written.err:find('WRONGTYPE', 1, true) then
      redis.call('RENAME', 'pm:events', 'pm:broken:pm:events')
      redis.pcall('XADD', 'pm:events', '*', 'e', entry)
    end
  end
  events, count = {}, 0
end
