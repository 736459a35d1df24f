-- Store new jobs that wait for others as RQ's do, or enqueue them if these have finished.
-- requires: enqueueing, events, guarded, memory, records
-- may use: deferring
--
-- KEYS[1]  the places of unique jobs
-- ARGV[1]  and those that follow but the last: as enqueue.lua has them, of the place "held"
-- ARGV[#]  msgpack: the ids of the others
-- Returns  an error that begins with FULL, with BATCH, or with JOB and an id of the others that is not there; otherwise
--          what enqueue.lua returns

local places = KEYS[1]
local jobs, payloads, packed = ARGV[1], ARGV, ARGV[#ARGV]

local parents = cmsgpack.unpack(packed)

local full = memory.refusal()
if full then return full end
local are_met = true
for _, parent in ipairs(parents) do
  if not records.exists(parent) then return redis.error_reply('JOB ' .. parent) end
  are_met = are_met and records.get(parent, 'status') == 'finished'
end
local reply = enqueueing.all(places, jobs, payloads)
if reply.err then return reply end

local known = {} -- by position: jobs that were not stored, since they are there already or another holds their place
for i = 1, #reply, 2 do known[reply[i]] = true end
local position = 0
for _, run in ipairs(cmsgpack.unpack(jobs)) do
  for _, id in ipairs(run[6]) do
    position = position + 1
    if not known[position] then
      guarded.call('SADD', 'rq:job::' .. id .. ':dependencies', unpack(parents)) -- RQ writes two colons
      for _, parent in ipairs(are_met and {} or parents) do
        guarded.call('SADD', records.key(parent) .. ':dependents', id)
      end
      if are_met then deferring.enqueue(id, (deferring.find(id))) end
    end
  end
end
if are_met then deferring.push() end
events.write()
return reply
