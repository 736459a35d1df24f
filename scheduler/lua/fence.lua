-- The fence: refuse every caller but the leader of the current term. Put in front of the scripts of a leader's duties;
-- the script's own KEYS[1] and Returns follow, and it also returns "not leading".

local function leads(term)
  return redis.pcall('HGET', 'pm:leader', 'term') == term
end

