-- gpt_claim: makes a worker the only one that may write about a job.
--
-- KEYS  1 ready jobs  2 the job
-- ARGV  1 worker  2 entry of the stream of ready jobs  3 '1' when another worker had it and fell silent
--       4 tokens of a user in a day  5 tokens of a room in a day; 0 = any number
-- Returns { room, question, user, trace, generation, attempt, stalls, ms left, '1' if it was cancelled, else '' }, with 'user' or
-- 'room' behind it when that one's tokens of the day are used up; or an empty list when the job is over or the entry is no longer this worker's.
local user_max, room_max = tonumber(ARGV[4]), tonumber(ARGV[5])
if not user_max or not room_max then return redis.error_reply('ERR gpt_claim: bad arguments') end
local job = redis.call('HMGET', KEYS[2], 'room', 'question', 'user', 'trace', 'deadline', 'base', 'entry',
  'cancelled')
-- Between the reading and this call the worker may have stood still, and another one have taken over.
if #redis.call('XPENDING', KEYS[1], GROUP, ARGV[2], ARGV[2], 1, ARGV[1]) == 0 then return {} end
if job[7] ~= ARGV[2] then
  redis.call('XACK', KEYS[1], GROUP, ARGV[2])
  return {}
end
local function is_spent(kind, name, most)
  return most > 0 and (tonumber(redis.call('GET', spent_key(kind, name)) or '0') or 0) >= most
end
local spent = is_spent('user', job[3], user_max) and 'user' or is_spent('room', job[1], room_max) and 'room' or nil
local left = math.max(0, tonumber(job[5]) - clock_ms())
local generation = redis.call('HINCRBY', KEYS[2], 'gen', 1)
local stalls = redis.call('HINCRBY', KEYS[2], 'stalls', ARGV[3])
redis.call('HSET', KEYS[2], 'state', 'running', 'worker', ARGV[1])
return { job[1], job[2], job[3], job[4], string.format('%d', generation),
  string.format('%d', generation - tonumber(job[6] or '0')), string.format('%d', stalls), string.format('%d', left),
  job[8] or '', spent }
