-- gpt_figures: how the queue of questions stands.
--
-- KEYS  1 ready jobs  2 delayed jobs  3 all open jobs  4 jobs that were given up
-- Returns { ready, running, delayed, open, given up, how long the oldest ready job has waited, ms }. The wait is
-- on the queue's clock: a pause is no wait, as for deadlines.
local ready, running, wait = 0, 0, 0
local groups = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, fields in ipairs(groups) do
  local info = {}
  for i = 1, #fields, 2 do info[fields[i]] = fields[i + 1] end
  if info.name == GROUP then
    local oldest = redis.call('XRANGE', KEYS[1], '(' .. info['last-delivered-id'], '+', 'COUNT', 1)[1]
    -- { 'j', job, 'c', when it became ready }
    if oldest then wait = math.max(0, clock_ms() - tonumber(oldest[2][4])) end
    -- without a lag the server has lost count: at least one waits, or none
    ready = info.lag or (oldest and 1 or 0)
    running = info.pending
  end
end
return { ready, running, redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3]), redis.call('XLEN', KEYS[4]), wait }
