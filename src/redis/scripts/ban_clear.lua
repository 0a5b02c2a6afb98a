-- ban_clear: ends the ban of a scope and forgets what led to it.
--
-- KEYS  1 ban of the scope  2 its level  3 its strikes
-- Returns { 1 when there was a ban in force, now (Unix ms) }
local now = clock()
local known = ban_in_force(KEYS[1], now)
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return { known and 1 or 0, now }
