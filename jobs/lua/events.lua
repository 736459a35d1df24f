-- The events of jobs: a script tells what it changes, and writes it all at its end, so that nothing is told that
-- didn't happen and nothing happens untold. Put in front of scripts; it has no KEYS[1] of its own and Returns nothing.
--
-- pm:events  a stream in the form of coordination/stream.py. An event is [type, job, queue, worker, at, details].

local EVENTS_AN_ENTRY, MOST_ENTRIES = 32, 10000
local script_began = redis.call('TIME')
local told_at = script_began[1] + script_began[2] / 1000000
local told, count = {}, 0

-- `details` is a table of names and values, or nothing.
local function tell(type, id, queue, worker, details)
  count = count + 1
  told[count] = {type, id, queue, worker or '', told_at, details}
end

-- A full memory refuses events, and only them: what they tell of is written already.
local function write_events()
  for first = 1, count, EVENTS_AN_ENTRY do
    local entry = cmsgpack.pack({unpack(told, first, math.min(first + EVENTS_AN_ENTRY - 1, count))})
    local written = redis.pcall('XADD', 'pm:events', 'MAXLEN', '~', MOST_ENTRIES, '*', 'e', entry)
    if written.err and written.err:find('WRONGTYPE', 1, true) then
      redis.call('RENAME', 'pm:events', 'pm:broken:pm:events')
      redis.pcall('XADD', 'pm:events', '*', 'e', entry)
    end
  end
  told, count = {}, 0
end
