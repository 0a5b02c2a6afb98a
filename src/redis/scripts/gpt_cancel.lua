-- gpt_cancel: notes that a job that is being answered is to end as far as it has come, for whoever has it or takes it over.
--
-- KEYS  1 the job
-- ARGV  1 the first generation of its life
-- Returns 1; 0 when nobody is answering it, or it is of another life.
local job = redis.call('HMGET', KEYS[1], 'state', 'base')
if job[1] ~= 'running' or tonumber(job[2]) + 1 ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'cancelled', '1')
return 1
