-- Make a one-time secret for a subject, in the place of the one before.
--
-- KEYS[1]  the secret    KEYS[2]  the subject's last one: a string, its hash
-- ARGV[1]  the secret's hash    ARGV[2]  what it is good for, JSON    ARGV[3]  its lifetime in milliseconds
-- ARGV[4]  what the keys of secrets begin with
-- Returns  1

local secret, last = KEYS[1], KEYS[2]
local hash, about, lifetime_ms, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local before = redis.pcall('GET', last)
redis.call('SET', secret, about, 'PX', lifetime_ms)
redis.call('SET', last, hash, 'PX', lifetime_ms)
if type(before) == 'string' and before ~= hash then redis.call('DEL', prefix .. before) end
return 1
