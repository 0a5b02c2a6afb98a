-- ban_index: the scopes that are banned; forgets those whose bans are over.
--
-- KEYS  1 index of bans (ZSET: scope, end of its ban, Unix ms)
-- Returns { now (Unix ms), scope, end, scope, end … }
local now = clock()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local bans = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
table.insert(bans, 1, integer(now))
return bans
