-- strike: counts refused acts of a scope.
--
-- KEYS  1 strikes of the scope
-- ARGV  1 window, ms  2 how many
-- Returns the strikes within the window.
local count = redis.call('INCRBY', KEYS[1], ARGV[2])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return count
