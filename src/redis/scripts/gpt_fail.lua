-- gpt_fail: ends a question without a reply, unless it has ended already, and tells every node that has the room joined.
--
-- KEYS  1 replies of the room that are being written  2 live channel  3 what ended the question
-- ARGV  1 PUBLISH or SPUBLISH  2 reply  3 message for the channel  4 how long the end is remembered, ms
--       5 the claim that gives up, or '' = whoever writes it
-- Returns 1 when this ended it; 0 when it had ended; -1 when a later claim writes it.
local writing = redis.call('HGET', KEYS[1], ARGV[2]) -- a wrong type fails here, before anything is written
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if ARGV[5] ~= '' and writing and tonumber(string.match(writing, '^%d+')) > tonumber(ARGV[5]) then return -1 end
redis.call('SET', KEYS[3], 'gpt|-|0|0|-', 'PX', ARGV[4])
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call(ARGV[1], KEYS[2], ARGV[3])
return 1
