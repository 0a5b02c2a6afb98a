-- gpt_due: what is periodic: delayed jobs whose time has come, jobs past their deadline, and the end of the stream.
--
-- KEYS  1 ready jobs  2 delayed jobs  3 all open jobs
-- ARGV  1 jobs at most  2 grace after the deadline, ms: whoever is at it ends it better
-- Returns the jobs that are past their deadline.
local now, clock, limit = now_ms(), clock_ms(), tonumber(ARGV[1])
for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, limit)) do
  redis.call('ZREM', KEYS[2], job)
  if redis.call('EXISTS', job_key(job)) == 1 then make_ready(job) end
end
-- Below the oldest entry that somebody has or that nobody has read there is nothing to keep. Entries are never deleted one
-- by one: that would make the group's lag unknown.
local group = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, fields in ipairs(group) do
  local info = {}
  for i = 1, #fields, 2 do info[fields[i]] = fields[i + 1] end
  if info.name == GROUP then
    local oldest = info['last-delivered-id']
    if info.pending > 0 then oldest = redis.call('XPENDING', KEYS[1], GROUP)[2] end
    redis.call('XTRIM', KEYS[1], 'MINID', oldest)
  end
end
return redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', clock - tonumber(ARGV[2]), 'LIMIT', 0, limit)
