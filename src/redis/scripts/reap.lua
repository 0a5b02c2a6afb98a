-- reap: claims what a dead node owned; one caller at a time gets it.
--
-- KEYS  1 liveness of the node  2 its owned hash  3 the claim
-- ARGV  1 how long the claim holds, ms: a reaper that dies half-way is followed by the next, cleaning twice is harmless
-- Returns { 0 } when the node lives or another reaper has the claim, else { 1, owned hash, flat }.
if redis.call('EXISTS', KEYS[1]) == 1 then return { 0 } end
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[1]) then return { 0 } end
return { 1, redis.call('HGETALL', KEYS[2]) }
