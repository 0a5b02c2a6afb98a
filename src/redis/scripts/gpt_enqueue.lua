-- gpt_enqueue: takes a question in, unless it is known or too many wait.
--
-- KEYS  1 ready jobs  2 the job  3 open jobs of the room  4 first jobs of the user  5 all open jobs
--       6 how far the job's lives went that were given up
-- ARGV  1 job  2 room  3 question  4 user  5 trace context  6 life, ms  7 jobs of the room at most  8 of the user at most
--       9 generation of its last claim, when it was given up and is asked once more: then it is taken in however many wait; else 0
-- Returns { ok | dup | room_busy | user_busy, how many of the room are before it }
local job, user = ARGV[1], ARGV[4]
local life, room_max, user_max = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local generation = tonumber(ARGV[9])
if not life or not room_max or not user_max or not generation then return redis.error_reply('ERR gpt_enqueue: bad arguments') end
if redis.call('EXISTS', KEYS[2]) == 1 then return { 'dup', 0 } end
-- Whoever read the question stood still until that life of it was over.
if generation < tonumber(redis.call('GET', KEYS[6]) or '0') then return { 'dup', 0 } end
local before = redis.call('LLEN', KEYS[3])
local is_first_life = generation == 0
if is_first_life and before >= room_max then return { 'room_busy', before } end
if is_first_life and before == 0 and redis.call('LLEN', KEYS[4]) >= user_max then return { 'user_busy', 0 } end
local deadline = clock_ms() + life
redis.call('HSET', KEYS[2], 'room', ARGV[2], 'question', ARGV[3], 'user', user, 'trace', ARGV[5], 'state', 'waiting',
  'gen', ARGV[9], 'base', ARGV[9], 'stalls', '0', 'deadline', string.format('%d', deadline))
redis.call('ZADD', KEYS[5], deadline, job)
redis.call('RPUSH', KEYS[3], job)
if before == 0 then offer(job, user) end
return { 'ok', before }
