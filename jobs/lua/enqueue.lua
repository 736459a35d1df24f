-- Store new jobs, and put each in its queue's list, rq:queue:<queue> with the next job at its left end, or among the
-- scheduled ones, the sorted set rq:scheduled:<queue>.
-- requires: enqueueing, memory
--
-- KEYS[1]  the places of unique jobs
-- ARGV[1]  msgpack: a list of runs, each of jobs that have much in common: [queue, place, [field, value, ...], batch,
--          expires, ids, owns, priority]
--          place says where they wait: at the "back" or "front" of the queue (then the last job comes first), "at" a
--          Unix time, "in" some seconds from now by the server's clock, or "held" if a batch enqueues them when it ends
--          the fields are the records', such as retries_left, which each retry counts down; created_at is the first
--          batch is nothing, or the batch in which they count (lib/batches.lua); all jobs of a call have the same
--          expires is nothing, or the seconds after which a job fails if it has not begun, counted from when it could
--          ids are the jobs', and differ
--          priority is left out for jobs without one (lib/bands.lua)
--          owns is nothing, or what each job has alone: [call, when, uniqueness, group, limits, takes]
--          call is nothing for a random id, and names the call that enqueues a job of a chosen id
--          when is the time or the seconds of its place
--          uniqueness is nothing, or for a unique job [key, rule, seconds, limit]:
--            "life"      kept out while the holder of the place is alive
--            "ttl"       kept out for `seconds` from the holder's enqueue, unless the holder failed
--            "throttle"  the same, even if the holder failed
--            "debounce"  while the holder has yet to be due, it is replaced and its wait starts again, up to `limit`
--                        seconds in all (0: no limit)
--          group is nothing, or the group in which the job waits (lib/groups.lua); limits is nothing, or its limits
--          (lib/limits.lua); takes is nothing, or which results of other nodes of its flow it takes (lib/giving.lua)
-- ARGV[2+] each job's payload, since this msgpack has no bytes
-- Returns  an error that begins with FULL, or with BATCH if the batch takes no more jobs; otherwise a list of each job
--          that was not simply enqueued: its position, from 1, and 0 if its id was known, or the holder's id if it was
--          kept out or replaced another; and so on
--
-- An id is known if its record exists. If that job was canceled and no longer runs, the id is known only to the call
-- that enqueued it. That call also knows it for a minute after its job ended and left no record, or replaced another
-- job. So a command that is sent again because its reply was lost enqueues nothing twice.

local places = KEYS[1]
local jobs, payloads = ARGV[1], ARGV -- the first job's payload is the second

return memory.refusal() or enqueueing.all(places, jobs, payloads)
