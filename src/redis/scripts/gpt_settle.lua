-- gpt_settle: counts the tokens of one call of the model for its user and its room, and records the call. Repeating it is
-- harmless.
--
-- KEYS  1 mark of the call  2 the user's tokens of the day  3 the room's  4 recorded calls
-- ARGV  1 how long the mark stays, ms  2 tokens  3 records kept, 0 = none  4.. fields and values of the record
-- Returns 1, or 0 when it was counted before.
local DAY_MS = 24 * 3600 * 1000
local tokens, kept = tonumber(ARGV[2]), tonumber(ARGV[3])
if not tokens or not kept or #ARGV % 2 == 0 then return redis.error_reply('ERR gpt_settle: bad arguments') end
-- wrong key types fail here, before anything is written
for n = 2, 3 do
  if not tonumber(redis.call('GET', KEYS[n]) or '0') then return redis.error_reply('ERR gpt_settle: no number') end
end
redis.call('XLEN', KEYS[4])
if not redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[1]) then return 0 end
local midnight = string.format('%d', (math.floor(now_ms() / DAY_MS) + 1) * DAY_MS)
for n = 2, 3 do
  redis.call('INCRBY', KEYS[n], ARGV[2])
  redis.call('PEXPIREAT', KEYS[n], midnight)
end
if kept > 0 then redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[3], '*', unpack(ARGV, 4)) end
return 1
