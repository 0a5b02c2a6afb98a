-- gpt_retry: puts a job off, or hands it over at once; only its last claimer may, once.
--
-- KEYS  1 ready jobs  2 the job  3 delayed jobs
-- ARGV  1 job  2 entry  3 generation  4 delay, ms; 0 = at once
-- Returns 1 when it was done.
local job = redis.call('HMGET', KEYS[2], 'gen', 'state')
if job[1] ~= ARGV[3] or job[2] ~= 'running' then return 0 end
redis.call('XACK', KEYS[1], GROUP, ARGV[2])
local delay = tonumber(ARGV[4])
if delay > 0 then
  redis.call('HSET', KEYS[2], 'state', 'delayed', 'worker', '')
  redis.call('ZADD', KEYS[3], now_ms() + delay, ARGV[1])
else
  redis.call('HSET', KEYS[2], 'worker', '')
  make_ready(ARGV[1])
end
return 1
