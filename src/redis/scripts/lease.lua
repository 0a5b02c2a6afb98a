-- lease: renews the leases of sockets, also where they were lost.
--
-- KEYS  1 leases of the scope
-- ARGV  1 life of a lease, ms  2.. sockets
-- Returns how many sockets the scope has.
local now = clock()
local life = tonumber(ARGV[1])
if not life then return redis.error_reply('ERR lease: bad arguments') end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for n = 2, #ARGV do redis.call('ZADD', KEYS[1], now + life, ARGV[n]) end
redis.call('PEXPIRE', KEYS[1], life)
return redis.call('ZCARD', KEYS[1])
