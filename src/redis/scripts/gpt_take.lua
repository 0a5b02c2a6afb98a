-- gpt_take: takes ready jobs that nobody has, unless the queue is paused or the provider wants no calls.
--
-- KEYS  1 ready jobs  2 the pause  3 the brake
-- ARGV  1 worker  2 jobs at most  3 tokens of a user in a day  4 tokens of a room in a day; 0 = any number
-- Returns { since when it is paused or '', by whom, why, ms until the brake ends or less than 1, how many jobs were read,
--       { entry, claim } per claim }.
local count, user_max, room_max = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not count or not user_max or not room_max then return redis.error_reply('ERR gpt_take: bad arguments') end
local pause = redis.call('HMGET', KEYS[2], 'since', 'by', 'reason')
local brake = redis.call('PTTL', KEYS[3])
local taken = { pause[1] or '', pause[2] or '', pause[3] or '', brake, 0 }
if pause[1] or brake > 0 then return taken end
local streams = redis.call('XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', count, 'STREAMS', KEYS[1], '>')
for _, stream in ipairs(streams or {}) do
  taken[5] = #stream[2]
  for _, entry in ipairs(stream[2]) do
    -- { 'j', job, 'c', when it became ready }
    local made = claim(entry[2][2], ARGV[1], entry[1], '0', user_max, room_max)
    if #made > 0 then taken[#taken + 1] = { entry[1], made } end
  end
end
return taken
