-- Add, change or remove a user, unless somebody else has changed that user since the caller read it.
-- requires: coordination/sessions/hashes, coordination/sessions/ending_all
--
-- KEYS[1]  the users: a hash of name to JSON    KEYS[2]  the user's sessions, an index
-- KEYS[3]  when all of them were last ended
-- ARGV[1]  the name    ARGV[2]  what the caller read, "" for nothing    ARGV[3]  what shall be there, "" for nothing
-- ARGV[4]  "all" to end the user's sessions, a session's hash to end the others, "" to end none
-- ARGV[5]  what the keys of sessions begin with    ARGV[6]  milliseconds that an end of all is kept
-- ARGV[7]  how many entries of the index to look at    ARGV[8]  how many users there may be
-- ARGV[9]  "admin" to refuse if no admin would be left, "first" to refuse if there is any user, or ""
-- Returns  "done", "changed", "full", "not first" or "last admin"
--
-- Repeated after a lost reply, the script finds what it wrote, and replies "done".

local users, index, ending = KEYS[1], KEYS[2], KEYS[3]
local name, before, after, ends = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local prefix, ending_ms, most_sessions, most_users, guarded = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local function is_admin(text)
  local is_json, user = pcall(cjson.decode, text)
  return is_json and type(user) == 'table' and user.role == 'admin'
end

local function has_another_admin()
  local entries = redis.call('HGETALL', users)
  for i = 1, #entries, 2 do
    if entries[i] ~= name and is_admin(entries[i + 1]) then return true end
  end
  return false
end

local now = hashes.read(users, name)[1] or ''
if now == after then return 'done' end
if now ~= before then return 'changed' end
if guarded == 'first' and hashes.count(users) > 0 then return 'not first' end
if now == '' and hashes.count(users) >= tonumber(most_users) then return 'full' end
if guarded == 'admin' and is_admin(now) and not is_admin(after) and not has_another_admin() then return 'last admin' end
if after == '' then
  redis.call('HDEL', users, name) -- first, so that a full memory keeps nobody from removing a user
else
  hashes.write(users, name, after)
end
if ends ~= '' then
  ending_all.sessions(index, ending, prefix, ending_ms, tonumber(most_sessions), ends == 'all' and '' or ends)
end
return 'done'
