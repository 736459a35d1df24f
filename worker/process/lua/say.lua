-- Write what running jobs said, unless their worker has lost their claims.
-- requires: jobs/caller, jobs/events, jobs/records, saying
--
-- KEYS[1]  the worker's claims
-- ARGV[1]  msgpack: [worker, now as RQ's text, [job, execution, attempt, lines, chunks], ...]
--          lines and chunks are lists of entries (lib/saying.lua); together they are about a mebibyte at most
-- Returns  how many jobs were still claimed under these executions

local claims = KEYS[1]
local worker, now_text, all = unpack(cmsgpack.unpack(ARGV[1]))
caller.at, caller.worker = now_text, worker

local written = 0
for _, each in ipairs(all) do
  local id, execution = each[1], each[2]
  if redis.call('HGET', claims, id) == execution and records.exists(id) then
    saying.write(unpack(each, 1, 5))
    written = written + 1
  end
end
events.write()
return written
