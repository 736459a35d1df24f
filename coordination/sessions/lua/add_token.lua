-- Add a token, unless another that lives has its name.
-- requires: coordination/redis/clock, hashes
--
-- KEYS[1]  the token    KEYS[2]  the tokens by name: a hash of name to the hash of the token
-- ARGV[1]  the token's hash    ARGV[2]  its name, "" if it is not listed    ARGV[3]  its lifetime in milliseconds
-- ARGV[4]  how many names there may be    ARGV[5]  what the keys of tokens begin with
-- ARGV[6]  what is known of it, JSON
-- Returns  "added", "taken" or "full"
--
-- Repeated after a lost reply, the script adds the same token.

local token, names = KEYS[1], KEYS[2]
local hash, name, lifetime_ms, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local prefix, about = ARGV[5], ARGV[6]

local function lives(other) return redis.call('EXISTS', prefix .. other) == 1 end

if name ~= '' then
  local holder = hashes.read(names, name)[1]
  if holder and holder ~= hash and lives(holder) then return 'taken' end
  if not holder and hashes.count(names) >= most then
    local entries = redis.call('HGETALL', names)
    for i = 1, math.min(#entries, 2 * most), 2 do
      if not lives(entries[i + 1]) then redis.call('HDEL', names, entries[i]) end
    end
    if redis.call('HLEN', names) >= most then return 'full' end
  end
  hashes.write(names, name, hash)
  redis.call('PEXPIRE', names, math.max(lifetime_ms, redis.call('PTTL', names)))
end
local ends = clock.now + lifetime_ms / 1000
hashes.write(token, 'about', about, 'ends', string.format('%.3f', ends), 'used', '')
redis.call('PEXPIRE', token, lifetime_ms)
return 'added'
