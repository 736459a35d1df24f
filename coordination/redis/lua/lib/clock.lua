-- The clock of the server, read once a call: `now` is in Unix seconds, `second` its whole part as text, `microseconds`
-- and `millisecond` whole numbers.

local clock = {}

local time = redis.call('TIME')
clock.second = time[1]
clock.microseconds = time[1] * 1000000 + time[2]
clock.now = clock.microseconds / 1000000
clock.millisecond = (clock.microseconds - clock.microseconds % 1000) / 1000

-- An instant as seconds from now, as text, for a reader whose clock may show another time; what is no instant stays.
function clock.seconds_to(at) return tonumber(at) and string.format('%.6f', at - clock.now) or at end

return clock
