-- Saying: what an execution said goes into streams of its job. Whoever calls this has compared the execution.
-- requires: jobs/belongings, jobs/records
-- may use: jobs/quarantine
--
-- pm:log:<id>, pm:output:<id>  an entry has many lines or chunks: `by` is "<execution>-<number>", `attempt` counts from
-- 1, and `said` is a JSON list. Its id is "<size>-<count>": what was ever said in this stream, with this entry. So a
-- stream is trimmed by its size, and a reader knows how many lines or chunks it lacks.

local saying = {}

local MOST_LINES = 262144 -- bytes, of which a line takes 262 at least, so these are 1,000 lines at most
local MOST_OUTPUT = 1048576 -- bytes

-- What was said before: the execution and number of the last entry, the size and the count; 0 and 0 if nothing was.
local function before(key)
  local last = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
  if last.err then
    quarantine.move(key, last.err)
    last = {}
  end
  if not last[1] then return nil, 0, 0, 0 end
  local size, count = last[1][1]:match('^(%d+)-(%d+)$')
  local execution, number = (last[1][2][2] or ''):match('^(.*)-(%d+)$')
  return execution, tonumber(number) or 0, tonumber(size), tonumber(count)
end

-- Append entries, each [number, count, size, JSON], to one stream; those that were appended before are left out.
local function append(key, execution, attempt, entries, most)
  if #entries == 0 then return end
  local last, last_number, size, count = before(key)
  for _, entry in ipairs(entries) do
    local number, more, bytes, said = unpack(entry)
    if last ~= execution or number > last_number then
      size, count = size + bytes, count + more
      local by = execution .. '-' .. number
      local function add(call)
        return call('XADD', key, string.format('%.0f-%.0f', size, count), 'by', by, 'attempt', attempt, 'said', said)
      end
      local added = add(redis.pcall)
      if type(added) == 'table' and not added.err:find('OOM', 1, true) then -- others wrote to it, or removed an entry
        quarantine.move(key, added.err)
        size, count = bytes, more
      end
      if type(added) == 'table' then add(redis.call) end
    end
  end
  if size > most then redis.call('XTRIM', key, 'MINID', string.format('%.0f', size - most)) end
end

-- Write what an execution said: lists of entries for its log and for its output.
function saying.write(id, execution, attempt, lines, chunks)
  local log, output = belongings.of(id)
  local is_first = redis.pcall('HSETNX', records.key(id), 'said', 1)
  if type(is_first) == 'table' and not is_first.err:find('OOM', 1, true) then return end -- it is no record any more
  if is_first == 1 then redis.call('UNLINK', log, output) end -- an earlier job's
  append(log, execution, attempt, lines, MOST_LINES)
  append(output, execution, attempt, chunks, MOST_OUTPUT)
  belongings.follow(id)
end

return saying
