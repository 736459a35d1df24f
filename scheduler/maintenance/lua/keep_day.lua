-- Keep the record of a day, unless it is there.
-- requires: jobs/guarded, scheduler/fence
--
-- KEYS[1]  the record: a hash (observe/day_record.py)
-- ARGV[1]  the leader's term, or ""    ARGV[2]  when the record expires, in Unix seconds    ARGV[3]  the field of all records
-- ARGV[4]  msgpack: [field, ...], each of whose values is an argument from ARGV[5] on
-- Returns  1, or 0 if the record is there; "not leading" if another leads

local record, term, ends, always, names, values = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], {unpack(ARGV, 5)}

if not fence.admits(term) then return 'not leading' end
if guarded.call('HEXISTS', record, always) == 1 then return 0 end
for number, field in ipairs(cmsgpack.unpack(names)) do redis.call('HSET', record, field, values[number]) end
redis.call('EXPIREAT', record, ends)
return 1
