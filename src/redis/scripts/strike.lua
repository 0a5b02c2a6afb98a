-- strike: counts a refused act of a scope.
--
-- KEYS  1 strikes of the scope
-- ARGV  1 window, ms
-- Returns the strikes within the window.
local count = redis.call('INCR', KEYS[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count
