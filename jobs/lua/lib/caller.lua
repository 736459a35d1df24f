-- Who makes a call and when, as the script says: `worker` and its `host` or nothing, and `at` as RQ's text.

local caller = {}

caller.at, caller.worker, caller.host = nil, nil, nil

return caller
