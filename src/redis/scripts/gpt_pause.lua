-- gpt_pause: makes all workers take no more questions, and stops the queue's clock, until gpt_resume.
--
-- KEYS  1 the pause
-- ARGV  1 who  2 why
-- Returns 1, or 0 when it was paused already: who, why and since when stay.
if #ARGV ~= 2 then return redis.error_reply('ERR gpt_pause: bad arguments') end
if redis.call('HEXISTS', KEYS[1], 'since') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'since', string.format('%d', now_ms()), 'by', ARGV[1], 'reason', ARGV[2])
redis.call('PUBLISH', READY, '')
return 1
