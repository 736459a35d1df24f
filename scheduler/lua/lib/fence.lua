-- The fence: refuse every caller but the leader of the current term.

local fence = {}

function fence.leads(term) return redis.pcall('HGET', 'pm:leader', 'term') == term end

-- Whether the caller may go on: an operator's call has no term.
function fence.admits(term) return term == '' or fence.leads(term) end

return fence
