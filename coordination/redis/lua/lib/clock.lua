-- The clock of the server, read once a call: `now` is in Unix seconds, `second` its whole part as text, `microseconds`
-- a whole number.

local clock = {}

local time = redis.call('TIME')
clock.second = time[1]
clock.now = time[1] + time[2] / 1000000
clock.microseconds = time[1] * 1000000 + time[2]

-- An instant as seconds from now, as text, for a reader whose clock may show another time; what is no instant stays.
function clock.seconds_to(at) return tonumber(at) and string.format('%.6f', at - clock.now) or at end

return clock
