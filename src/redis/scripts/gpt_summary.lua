-- gpt_summary: keeps the summary of a room's messages up to a place, unless it has become wrong while it was written.
--
-- KEYS  1 summary (HASH seq, text)  2 meta
-- ARGV  1 seq of the summary that it goes on from, 0 = none  2 seq of the newest message in it
--       3 seq of the newest event that its writer knew  4 text  5 how long it stays, ms
-- Returns 1; 0 when another one was kept meanwhile, a message was edited or deleted, or the room is gone.
local base, seq, known = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not base or not seq or not known then return redis.error_reply('ERR gpt_summary: bad arguments') end
local kept = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')
local meta = redis.call('HMGET', KEYS[2], 'changed', 'deleted')
if kept ~= base or tonumber(meta[1] or '0') > known or meta[2] then return 0 end
redis.call('HSET', KEYS[1], 'seq', ARGV[2], 'text', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
