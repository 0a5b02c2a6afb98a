-- token_requests: counts a token request of an address.
--
-- KEYS  1 counter (legacy name tokenRequests:<ip>)
-- ARGV  1 window, ms
-- Returns { count, ms left }. A counter without a TTL, as a crash between INCR and EXPIRE of the old handler left it,
-- gets one again.
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = tonumber(ARGV[1])
  redis.call('PEXPIRE', KEYS[1], left)
end
return { count, left }
