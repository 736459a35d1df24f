-- Write what running jobs said, unless their worker has lost their claims.
-- requires: jobs/caller, jobs/events, jobs/records, saying
--
-- KEYS[1]  the worker's claims
-- ARGV[1]  msgpack: [worker, now as RQ's text, [job, execution, attempt, lines, chunks], ...]
--          lines and chunks are lists of entries (lib/saying.lua); together they are about a mebibyte at most
-- Returns  the executions under which their jobs are claimed no more

local claims = KEYS[1]
local worker, now_text, all = unpack(cmsgpack.unpack(ARGV[1]))
caller.at, caller.worker = now_text, worker

local lost = {}
for _, each in ipairs(all) do
  local id, execution = each[1], each[2]
  if redis.call('HGET', claims, id) ~= execution then
    lost[#lost + 1] = execution
  elseif records.exists(id) then
    saying.write(unpack(each, 1, 5))
  end
end
events.write()
return lost
