-- token_requests: counts a token request of an address; one over the limit bans it by the ladder.
--
-- KEYS  1 counter (legacy name tokenRequests:<ip>)  2 ban of the address  3 its level
-- ARGV  1 window, ms  2 limit  3 ladder: ms separated by commas, '' = count only  4 reason  5 actor
-- Returns { requests within the window, ms left of it, 1 when a ban is new, now (Unix ms), the ban set or false }.
-- A counter without a TTL, as a crash between INCR and EXPIRE of the old handler left it, gets one again.
local now = clock()
local window, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
if not window or not limit then return redis.error_reply('ERR token_requests: bad arguments') end
redis.call('HLEN', KEYS[2]) -- a wrong type fails here, before anything is written
redis.call('STRLEN', KEYS[3])
local count = redis.call('INCR', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
  left = window
  redis.call('PEXPIRE', KEYS[1], left)
end
if count <= limit or ARGV[3] == '' then return { count, left, 0, now, false } end
local ban, new = ban_by_ladder(KEYS[2], KEYS[3], now, ARGV[4], ARGV[5], ARGV[3])
return { count, left, new, now, ban }
