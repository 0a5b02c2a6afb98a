-- Prelude of the scripts by which workers claim jobs.
--
-- claim(job, worker, entry, stalled, user_max, room_max) makes a worker the only one that may write about a job whose entry
-- it has read. It returns { room, question, user, trace, generation, attempt, stalls, ms left, '1' if it was cancelled, else
-- '' }, with 'user' or 'room' behind it when that one's tokens of the day (`user_max`, `room_max`; 0 = any number) are used up;
-- or an empty list when the job is over.
local function claim(job, worker, entry, stalled, user_max, room_max)
  local key = job_key(job)
  local known = redis.call('HMGET', key, 'room', 'question', 'user', 'trace', 'deadline', 'base', 'entry', 'cancelled')
  if known[7] ~= entry then
    redis.call('XACK', READY, GROUP, entry)
    return {}
  end
  local function is_spent(kind, name, most)
    return most > 0 and (tonumber(redis.call('GET', spent_key(kind, name)) or '0') or 0) >= most
  end
  local spent = is_spent('user', known[3], user_max) and 'user' or is_spent('room', known[1], room_max) and 'room' or nil
  local left = math.max(0, tonumber(known[5]) - clock_ms())
  local generation = redis.call('HINCRBY', key, 'gen', 1)
  local stalls = redis.call('HINCRBY', key, 'stalls', stalled)
  redis.call('HSET', key, 'state', 'running', 'worker', worker)
  return { known[1], known[2], known[3], known[4], string.format('%d', generation),
    string.format('%d', generation - tonumber(known[6] or '0')), string.format('%d', stalls), string.format('%d', left),
    known[8] or '', spent }
end
