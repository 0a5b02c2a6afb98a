-- gpt_beat: renews a worker's hold on what it is answering.
--
-- KEYS  1 ready jobs  2.. the jobs
-- ARGV  1 worker  then per job: 1 entry  2 generation
-- Returns per job 1 while it is the worker's, 2 when it is and was cancelled, 0 when it is over or another has it.
local held = {}
for n = 2, #KEYS do
  local entry, generation = ARGV[(n - 1) * 2], ARGV[(n - 1) * 2 + 1]
  local job = redis.call('HMGET', KEYS[n], 'gen', 'worker', 'cancelled')
  if job[1] == generation and job[2] == ARGV[1] then
    redis.call('XCLAIM', KEYS[1], GROUP, ARGV[1], 0, entry, 'JUSTID')
    held[#held + 1] = job[3] and 2 or 1
  else
    held[#held + 1] = 0
  end
end
return held
