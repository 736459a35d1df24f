-- Knowing: whether a job was enqueued before.
-- requires: gone, records
-- may use: claimants

local knowing = {}

-- The reply for a job that was enqueued before, or nothing. A canceled job keeps out only the call that enqueued it, but
-- all others too while it still runs: its end would count as the end of the new one.
function knowing.find(id, call)
  if records.exists(id) then
    local is_free = call ~= '' and records.get(id, 'status') == 'canceled' and records.get(id, 'call') ~= call
      and not claimants.find(id)
    return not is_free and 0, is_free
  end
  return gone.find(id, call)
end

return knowing
