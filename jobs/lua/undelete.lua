-- Put a deleted job back as it was, with all that was kept of it. One that waited goes to the end of its queue.
-- requires: caller, coordination/redis/clock, events, guarded, queues, records
-- may use: batches, groups, scheduled, singletons
--
-- KEYS[1]  the job's record    KEYS[2]  the places of unique jobs
-- ARGV[1]  the job    ARGV[2]  now as RQ's text    ARGV[3]  its status    ARGV[4]  its queue    ARGV[5]  its group    ARGV[6]
--          its unique key    ARGV[7]  its limits    ARGV[8]  the registry that had it, each "" for none    ARGV[9]  its score
-- ARGV[10 ...]  for each key, its record first: its name, what DUMP gave, when it expires in Unix milliseconds or 0
-- Returns  "undeleted", "exists" if there is such a job, "expired" if its time to live is over, "held <id>" if another job
--          holds its place, or "unreadable" if this server can't read it

local places, args = KEYS[2], ARGV
local id, now_text, status, queue, group, unique, needs, registry, score = unpack(ARGV)

local FIRST, WIDTH = 10, 3 -- where the keys begin, and values of each
caller.at = now_text

-- Restore the key at this place. Why it can't be, if it can't.
local function restore(at)
  local key, dump, expires = unpack(args, at, at + WIDTH - 1)
  if expires ~= '0' and tonumber(expires) <= clock.millisecond then return 'expired' end
  local done = redis.pcall('RESTORE', key, expires, dump, 'REPLACE', 'ABSTTL')
  if done.err and done.err:find('OOM', 1, true) then redis.call('RESTORE', key, expires, dump, 'ABSTTL') end -- raises it
  return done.err and 'unreadable'
end

-- The job that holds the place of this one, or nothing.
local function holder()
  local other = singletons.other(queue, group, needs, id)
  if other or unique == '' then return other end
  local held = (guarded.call('HGET', places, unique) or ''):match('^(%S+) %S+$')
  return held ~= id and records.is_pending(records.get(held or '', 'status')) and held
end

if records.exists(id) then return 'exists' end
group = group ~= '' and group or nil
local other = records.is_pending(status) and holder()
if other then return 'held ' .. other end
local refused = restore(FIRST)
if refused then return refused end
for at = FIRST + WIDTH, #args, WIDTH do restore(at) end
if unique ~= '' and records.is_pending(status) then redis.call('HSET', places, unique, id .. ' 0') end
if registry ~= '' then
  guarded.call('ZADD', registry, score, id)
elseif status == 'queued' then
  groups.join(queue, group, id, 'RPUSH')
end
queues.register(queue)
if status == 'queued' then events.emit('enqueued', id, queue) end
if status == 'scheduled' then
  events.emit('scheduled', id, queue, nil, {due = tonumber(score)})
  scheduled.due(queue, tonumber(score))
  scheduled.notify()
end
batches.count_noted()
events.write()
return 'undeleted'
