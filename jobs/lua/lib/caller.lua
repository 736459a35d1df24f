-- Who makes a call and when, as the script says: `worker` or nothing, and `at` as RQ's text.

local caller = {}

caller.at, caller.worker = nil, nil

return caller
