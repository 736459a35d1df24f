-- The clock of the server, read once a call: `now` is in Unix seconds, `second` its whole part as text, `microseconds`
-- a whole number.

local clock = {}

local time = redis.call('TIME')
clock.second = time[1]
clock.now = time[1] + time[2] / 1000000
clock.microseconds = time[1] * 1000000 + time[2]

return clock
