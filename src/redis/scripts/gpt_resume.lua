-- gpt_resume: lets workers take questions again, and the queue's clock go on from where it stopped.
--
-- KEYS  1 the pause
-- Returns for how long it was paused, ms, or -1 when it was not.
local since = redis.call('HGET', KEYS[1], 'since')
if not since then return -1 end
local paused = math.max(0, now_ms() - tonumber(since))
redis.call('HDEL', KEYS[1], 'since', 'by', 'reason')
redis.call('HINCRBY', KEYS[1], 'total', string.format('%d', paused))
redis.call('PUBLISH', READY, '')
return paused
