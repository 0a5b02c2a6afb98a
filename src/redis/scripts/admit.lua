-- admit: lets a socket of a scope in, or says why not: a ban, the rate of handshakes, the number of sockets.
--
-- KEYS  1 ban of the scope  2 its leases (ZSET: socket, until when its lease holds, Unix ms)  3 its rate of handshakes
-- ARGV  1 socket  2 life of a lease, ms  3 sockets at most, 0 = any number  4 interval between handshakes, µs, 0 = any rate
--       5 burst of handshakes  6 rules that are only watched: 'c' the number, 'r' the rate
-- Returns { ok | banned | full | rate, ms to wait, now (Unix ms), the ban or false, 1 when the number was exceeded,
--       1 when the rate was }. Nothing is taken unless it is ok. Leases of a node that died end by themselves.
local now, now_us = clock()
local life, cap, interval, burst = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if not life or not cap or not interval or not burst then return redis.error_reply('ERR admit: bad arguments') end
local ban = ban_in_force(KEYS[1], now)
if ban then return { 'banned', tonumber(ban[5]) - now, now, ban, 0, 0 } end

local arrival, wait, too_fast = nil, 0, 0
if interval > 0 then
  arrival, wait = arrival_after(KEYS[3], now_us, interval, burst, 1)
  if not arrival then
    too_fast = 1
    if not string.find(ARGV[6], 'r', 1, true) then return { 'rate', wait, now, false, 0, 1 } end
  end
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local too_many = 0
if cap > 0 and redis.call('ZCARD', KEYS[2]) >= cap and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  too_many = 1
  if not string.find(ARGV[6], 'c', 1, true) then return { 'full', life, now, false, 1, too_fast } end
end
if arrival then write_arrival(KEYS[3], now_us, arrival) end
redis.call('ZADD', KEYS[2], now + life, ARGV[1])
redis.call('PEXPIRE', KEYS[2], life)
return { 'ok', 0, now, false, too_many, too_fast }
