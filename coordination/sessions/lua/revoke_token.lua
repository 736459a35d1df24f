-- Revoke the token of a name.
-- requires: hashes, announce
--
-- KEYS[1]  the tokens by name: a hash of name to the hash of the token
-- ARGV[1]  the name    ARGV[2]  what the keys of tokens begin with
-- Returns  1 if it lived, 0 if not

local names = KEYS[1]
local name, prefix = ARGV[1], ARGV[2]

local hash = hashes.read(names, name)[1]
if not hash then return 0 end
redis.call('HDEL', names, name)
local lived = redis.call('DEL', prefix .. hash)
announce.ended(prefix .. hash)
return lived
