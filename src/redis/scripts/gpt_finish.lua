-- gpt_finish: forgets a job that has ended and lets its room and its user go on. Repeating it is harmless.
--
-- KEYS  1 ready jobs  2 the job  3 open jobs of the room  4 first jobs of the user  5 all open jobs  6 delayed jobs
-- ARGV  1 job  2 entry, or '' = as the job knows
-- Returns 1 when it was open.
local job = ARGV[1]
local entry = ARGV[2] ~= '' and ARGV[2] or redis.call('HGET', KEYS[2], 'entry')
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
