-- The fence: a leader that was overtaken is refused, whatever it believes. Put in front of what a leader does; KEYS[1]
-- and the others are the script's own, and its Returns are too, besides "overtaken".

local function is_overtaken(term)
  return redis.pcall('HGET', 'pm:leader', 'term') ~= term
end

