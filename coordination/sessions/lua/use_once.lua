-- Use a one-time secret up.
--
-- KEYS[1]  the secret    KEYS[2]  who has used it: a string
-- ARGV[1]  this call, one word    ARGV[2]  milliseconds in which this call may be repeated
-- Returns  what it is good for, JSON; nothing if there is none or another call has used it
--
-- Repeated after a lost reply, the script replies the same.

local secret, used_by = KEYS[1], KEYS[2]
local call, repeat_ms = ARGV[1], ARGV[2]

local about = redis.pcall('GET', secret)
if type(about) ~= 'string' then return end
local user = redis.pcall('GET', used_by)
if user then return user == call and about or nil end
redis.call('SET', used_by, call, 'PX', repeat_ms)
redis.call('PEXPIRE', secret, math.max(repeat_ms - 1000, 1)) -- it goes before the mark that it was used
return about
