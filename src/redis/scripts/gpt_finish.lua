-- gpt_finish: forgets a job that has ended and lets its room and its user go on; one that was given up is kept for operators,
-- in the same step, so that there is one dead letter of it. Repeating it is harmless, however late: who saw the end of one
-- life leaves a job of the next one alone.
--
-- KEYS  1 ready jobs  2 the job  3 open jobs of the room  4 first jobs of the user  5 all open jobs  6 delayed jobs
--       7 dead letters  8 how far the job's lives went that were given up
-- ARGV  1 job  2 why it was given up, or ''  3 its room's partition  4 dead letters at most
--       5 a generation of the life that has ended: a claim's, or the first  6 how long 8 is remembered, ms
-- Returns 1 when it was open.
local job = ARGV[1]
local reason, letters_max, generation, remembered = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
if not letters_max or not generation or not remembered then return redis.error_reply('ERR gpt_finish: bad arguments') end
-- wrong key types fail here, before anything is written
redis.call('XLEN', KEYS[7])
redis.call('STRLEN', KEYS[8])
local known = redis.call('HMGET', KEYS[2], 'room', 'question', 'user', 'trace', 'gen', 'base', 'entry')
if known[1] and tonumber(known[6]) >= generation then return 0 end
if known[1] and reason ~= '' then
  redis.call('XADD', KEYS[7], 'MAXLEN', '~', letters_max, '*', 'room', known[1], 'question', known[2], 'user', known[3],
    'trace', known[4], 'gen', known[5], 'attempts', string.format('%d', known[5] - known[6]), 'code', reason,
    'p', ARGV[3])
  redis.call('SET', KEYS[8], math.max(1, tonumber(known[5])), 'PX', remembered)
end
local entry = known[7]
if entry then redis.call('XACK', KEYS[1], GROUP, entry) end
local open = redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[5], job)
redis.call('ZREM', KEYS[6], job)
local first_of_user = redis.call('LINDEX', KEYS[4], 0) == job
local first_of_room = redis.call('LINDEX', KEYS[3], 0) == job
redis.call('LREM', KEYS[4], 0, job)
redis.call('LREM', KEYS[3], 0, job)
if first_of_user then
  local following = redis.call('LINDEX', KEYS[4], 0)
  if following then make_ready(following) end
end
if first_of_room then
  local following = redis.call('LINDEX', KEYS[3], 0)
  if following then offer(following, redis.call('HGET', job_key(following), 'user')) end
end
return open
