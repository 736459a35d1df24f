-- Announcing what has ended, so that whatever goes on because of it ends, too.

local announce = {}

-- Publish the index of a user whose sessions ended, or the key of a token. Nobody's ending depends on that.
function announce.ended(key) redis.pcall('PUBLISH', 'pm:endings', cjson.encode(key)) end

return announce
