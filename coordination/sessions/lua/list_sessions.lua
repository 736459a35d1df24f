-- The sessions of a user.
-- requires: indexes, sessions
--
-- KEYS[1]  the user's sessions, an index
-- ARGV[1]  what the keys of sessions begin with    ARGV[2]  what the keys of ends of all sessions begin with
-- ARGV[3]  how many entries of the index to look at
-- Returns  what is known of each

local index = KEYS[1]
local prefix, endings_prefix, most = ARGV[1], ARGV[2], tonumber(ARGV[3])

local listed = {}
for _, hash in ipairs(indexes.members(index, most)) do
  local found = sessions.read(prefix .. hash, endings_prefix)
  if found then listed[#listed + 1] = sessions.shown(hash, found) end
end
return listed
