-- Deciding: a job of a flow is enqueued, canceled or skipped, or waits again, as its numbers say (flow_nodes.verdict).
-- requires: counting, deferring, ending
-- may use: corrupt, giving

local deciding = {}

-- Do what is decided of a job now, if it still waits. The script has to push what is enqueued.
function deciding.job(flow, id, was, is)
  if was == 'c' or was == 's' then deferring.again(id, 'canceled') end
  if is == 'p' then return end
  local fields, found = deferring.find(id)
  if fields and is == 'd' then
    deferring.enqueue(id, fields, giving.fields(flow, fields[6]))
  elseif fields then
    deferring.leave(id, fields)
    ending.cancel(id, fields[1], 'flow')
    ending.keep(id, counting.seconds_to_keep(redis.pcall('HGET', 'pm:batch:' .. flow, 'keep'))) -- so that a retry finds it
    if is == 's' then counting.note(id, 's', flow) end
  elseif found.err then
    corrupt.set_aside(id, found.err)
    counting.note(id, 'f', flow)
  elseif not found[2] then
    counting.note(id, 'c', flow) -- its record is gone
  end
end

return deciding
