-- strike: counts refused acts of a scope; too many ban it by the ladder.
--
-- KEYS  1 strikes of the scope  2 its ban  3 its level
-- ARGV  1 window, ms  2 how many  3 strikes that are let pass  4 ladder: ms separated by commas, '' = count only
--       5 reason  6 actor
-- Returns { strikes within the window, 1 when a ban is new, now (Unix ms), the ban set or false }
local now = clock()
local count, window, limit = tonumber(ARGV[2]), tonumber(ARGV[1]), tonumber(ARGV[3])
if not count or not window or not limit then return redis.error_reply('ERR strike: bad arguments') end
redis.call('HLEN', KEYS[2]) -- a wrong type fails here, before anything is written
redis.call('STRLEN', KEYS[3])
local strikes = redis.call('INCRBY', KEYS[1], count)
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], window) end
if strikes <= limit or ARGV[4] == '' then return { strikes, 0, now, false } end
local ban, new = ban_by_ladder(KEYS[2], KEYS[3], now, ARGV[5], ARGV[6], ARGV[4])
-- who has served a ban begins anew
if new == 1 then redis.call('DEL', KEYS[1]) end
return { strikes, new, now, ban }
