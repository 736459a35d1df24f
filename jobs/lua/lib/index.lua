-- The index of ended jobs: which ended when, so that a search reads few records. An entry says where to look and no
-- more: it may name a job twice, or one that has run again since.
-- requires: guarded
--
-- pm:index:<finished or failed>  streams. An entry has `n`, how many jobs it names, and `e`, msgpack: [[name of the
-- job's function, queue, class of the error or "", id, ...], ...]; stopped jobs are among the failed
-- finish_and_claim.lua writes the entries that workers make (worker/process/statistics.py), and the leading scheduler
-- trims the streams.

local index = {}

local MOST_ENTRIES = 1000000 -- as in finish_and_claim.lua
local MOST_OF_A_NAME = 202 -- with the bracket and quote in front of it

-- Add a failed job whose worker can't. Its function's name begins the payload, unless that is compressed. What an entry
-- lacks a search finds in the record.
function index.add_failed(id, queue, data)
  local name = (data or ''):sub(1, MOST_OF_A_NAME):match('^%["([^"\\]+)"') or ''
  local entry = cmsgpack.pack({{name, queue, '', id}})
  guarded.call('XADD', 'pm:index:failed', 'MAXLEN', '~', MOST_ENTRIES, '*', 'n', 1, 'e', entry)
end

return index
