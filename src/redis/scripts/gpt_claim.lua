-- gpt_claim: claims a job that a worker has taken over from another one.
--
-- KEYS  1 ready jobs  2 the job
-- ARGV  1 worker  2 job  3 entry of the stream of ready jobs  4 '1' when the other one fell silent
--       5 tokens of a user in a day  6 tokens of a room in a day; 0 = any number
-- Returns the claim, or an empty list when the job is over or the entry is no longer this worker's.
local user_max, room_max = tonumber(ARGV[5]), tonumber(ARGV[6])
if not user_max or not room_max then return redis.error_reply('ERR gpt_claim: bad arguments') end
-- Between the reading and this call the worker may have stood still, and another one have taken over.
if #redis.call('XPENDING', KEYS[1], GROUP, ARGV[3], ARGV[3], 1, ARGV[1]) == 0 then return {} end
return claim(ARGV[2], ARGV[1], ARGV[3], ARGV[4], user_max, room_max)
