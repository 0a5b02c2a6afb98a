-- gpt_claim: makes a worker the only one that may write about a job.
--
-- KEYS  1 the job
-- ARGV  1 worker  2 entry of the stream of ready jobs  3 '1' when another worker had it and fell silent
-- Returns { room, question, user, trace, generation, attempt, stalls, ms left }, or an empty list when the job is over or not this
-- entry's any more.
local job = redis.call('HMGET', KEYS[1], 'room', 'question', 'user', 'trace', 'deadline', 'base')
if not job[1] then return {} end
local left = math.max(0, tonumber(job[5]) - clock_ms())
local generation = redis.call('HINCRBY', KEYS[1], 'gen', 1)
local stalls = redis.call('HINCRBY', KEYS[1], 'stalls', ARGV[3])
redis.call('HSET', KEYS[1], 'state', 'running', 'worker', ARGV[1], 'entry', ARGV[2])
return { job[1], job[2], job[3], job[4], string.format('%d', generation),
  string.format('%d', generation - tonumber(job[6] or '0')), string.format('%d', stalls), string.format('%d', left) }
