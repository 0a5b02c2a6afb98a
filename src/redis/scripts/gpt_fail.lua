-- gpt_fail: ends a question without a reply, unless it has ended already, and tells every node that has the room joined.
--
-- KEYS  1 replies of the room that are being written  2 live channel  3 what ended the question
-- ARGV  1 PUBLISH or SPUBLISH  2 reply  3 message for the channel  4 how long the end is remembered, ms
-- Returns 1 when this ended it.
redis.call('HLEN', KEYS[1]) -- a wrong type fails here, before anything is written
if not redis.call('SET', KEYS[3], 'gpt|-|0|0|-', 'NX', 'PX', ARGV[4]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call(ARGV[1], KEYS[2], ARGV[3])
return 1
