-- Giving: what the nodes of a flow return is handed on to those that take it.
-- requires: flow_nodes, guarded
--
-- In a node's record `takes` says which results go where, a JSON list of [place, [names]], and `given` has them, a JSON
-- object of names to the results as batches collect them; "!" stands for one that is too large, "?" for one that is gone.

local giving = {}

local LONGEST_RESULT, MOST_BYTES, MOST_TAKEN = 65536, 262144, 1000

-- Keep results of a batch, by id: all if it `collects`, otherwise those that some node takes; `texts` has the numbers of
-- nodes.
function giving.keep(batch, results, texts, collects)
  for id, result in pairs(results) do
    if collects or flow_nodes.is_taken(texts[id]) then
      guarded.call('HSET', 'pm:batch:' .. batch .. ':results', id, #result > LONGEST_RESULT and '!' or result)
    end
  end
end

-- The last result of a job as batches collect it; `state` says how it ended.
function giving.last(id, state)
  local last = redis.pcall('XREVRANGE', 'rq:results:' .. id, '+', '-', 'COUNT', 1)[1]
  for i, name in ipairs(last and last[2] or {}) do
    if name == 'return_value' or name == 'exc_string' then return (state == 'd' and '+' or '-') .. last[2][i + 1] end
  end
end

-- Keep the result of a node that has finished, if it is still there.
function giving.keep_last(flow, id)
  local result = giving.last(id, 'd')
  if result then guarded.call('HSETNX', 'pm:batch:' .. flow .. ':results', id, #result > LONGEST_RESULT and '!' or result) end
end

-- The names of the nodes whose results a node takes; none if that can't be read.
function giving.names(takes)
  local is_json, found = pcall(cjson.decode, takes or '')
  local names = {}
  for _, each in ipairs(is_json and type(found) == 'table' and found or {}) do
    for _, name in ipairs(type(each) == 'table' and type(each[2]) == 'table' and each[2] or {}) do
      if type(name) == 'string' and #names < MOST_TAKEN then names[#names + 1] = name end
    end
  end
  return names
end

-- The field with the results that a node takes, and its value; nothing if it takes none.
function giving.fields(flow, takes)
  local names = takes and giving.names(takes) or {}
  if #names == 0 then return end
  local ids, given, size = {}, {}, 0
  for i, name in ipairs(names) do ids[i] = flow .. '-' .. name end
  local found = guarded.call('HMGET', 'pm:batch:' .. flow .. ':results', unpack(ids))
  for i, name in ipairs(names) do
    local result = found[i] or guarded.call('HGET', 'pm:batch:' .. flow .. ':jobs', ids[i]) == 'd' and '?'
    if result and result:sub(1, 1) ~= '-' and not given[name] then
      size = size + #result
      given[name] = size > MOST_BYTES and '!' or result
    end
  end
  return 'given', next(given) and cjson.encode(given) or '{}'
end

return giving
