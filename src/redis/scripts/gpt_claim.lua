-- gpt_claim: makes a worker the only one that may write about a job.
--
-- KEYS  1 ready jobs  2 the job
-- ARGV  1 worker  2 entry of the stream of ready jobs  3 '1' when another worker had it and fell silent
-- Returns { room, question, user, trace, generation, stalls, ms left }, or an empty list when the job is over or the entry
-- is no longer this worker's.
local job = redis.call('HMGET', KEYS[2], 'room', 'question', 'user', 'trace', 'deadline', 'entry')
-- Between the reading and this call the worker may have stood still, and another one have taken over.
if #redis.call('XPENDING', KEYS[1], GROUP, ARGV[2], ARGV[2], 1, ARGV[1]) == 0 then return {} end
if job[6] ~= ARGV[2] then
  redis.call('XACK', KEYS[1], GROUP, ARGV[2])
  return {}
end
local generation = redis.call('HINCRBY', KEYS[2], 'gen', 1)
local stalls = redis.call('HINCRBY', KEYS[2], 'stalls', ARGV[3])
redis.call('HSET', KEYS[2], 'state', 'running', 'worker', ARGV[1])
return { job[1], job[2], job[3], job[4], string.format('%d', generation), string.format('%d', stalls),
  string.format('%d', math.max(0, tonumber(job[5]) - now_ms())) }
