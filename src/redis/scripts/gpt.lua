-- Prelude of the scripts of the queue of questions to the model.
--
-- All keys have the tag {gpt}. A job is a question, `<room> <message id>`. A room's list holds its open jobs in order; the
-- first of them waits in its user's list. The first of a user's list is runnable: it is in the stream of ready jobs, or being
-- answered, or delayed. So there is at most one runnable job of a room and of a user, replies of a room come in order, and
-- the stream's lag is the work that could be done.
--
-- A finished job is followed by jobs whose keys are not known before: they are made from the names in the job, and share
-- the slot of the keys that are named.
--
-- While the queue is paused (`since` in rc:{gpt}:pause) no worker takes a job, and its clock stands still: `total` there is
-- for how long it was paused in all. Deadlines are times of that clock, so that a pause ends no question.
local READY, PREFIX, GROUP = 'rc:{gpt}:ready', 'rc:{gpt}:', 'workers'

local function job_key(job) return PREFIX .. 'job:' .. job end

-- Tokens of a user or a room since midnight UTC, when the key expires.
local function spent_key(kind, name) return PREFIX .. 'spent:' .. kind .. ':' .. name end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function clock_ms()
  local pause = redis.call('HMGET', PREFIX .. 'pause', 'since', 'total')
  return (tonumber(pause[1] or '') or now_ms()) - (tonumber(pause[2] or '') or 0)
end

-- Puts a job where workers take it from, with the queue's time, and wakes them. Only by this entry can it be claimed: an
-- ended job may leave one behind.
local function make_ready(job)
  local entry = redis.call('XADD', READY, '*', 'j', job, 'c', string.format('%d', clock_ms()))
  redis.call('HSET', job_key(job), 'state', 'ready', 'entry', entry)
  redis.call('PUBLISH', READY, '')
end

-- A job is the first of its room: it waits for its user, and is ready when it is the first there too.
local function offer(job, user)
  local list = PREFIX .. 'user:' .. user
  if redis.call('RPUSH', list, job) == 1 then make_ready(job) end
end
