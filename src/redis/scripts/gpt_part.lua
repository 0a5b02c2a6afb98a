-- gpt_part: adds to a reply that is being written, and tells every node that has the room joined.
--
-- KEYS  1 replies of the room that are being written (HASH: id, `generation|index|text`)  2 live channel
--       3 what ended the question
-- ARGV  1 PUBLISH or SPUBLISH  2 reply  3 generation  4 index, -1 = begin anew  5 text  6 message for the channel
-- Returns 1; 0 when a later generation writes it, or it has ended: nothing is told then.
local PART_MS = 10 * 60 * 1000   -- longer than any question lives
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local known = redis.call('HGET', KEYS[1], ARGV[2])
local text = ''
if known then
  local generation, _, before = string.match(known, '^(%d+)|(%-?%d+)|(.*)$')
  if tonumber(generation) > tonumber(ARGV[3]) then return 0 end
  if generation == ARGV[3] and ARGV[4] ~= '-1' then text = before end
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3] .. '|' .. ARGV[4] .. '|' .. text .. ARGV[5])
redis.call('PEXPIRE', KEYS[1], PART_MS)
redis.call(ARGV[1], KEYS[2], ARGV[6])
return 1
