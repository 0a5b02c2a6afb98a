-- ban_set: bans a scope, by the ladder or until a given time.
--
-- KEYS  1 ban of the scope  2 its level
-- ARGV  1 reason  2 actor  3 ladder: ms separated by commas, or '' for a ban of fixed length  4 origin of a fixed one
--       5 its length, ms; negative: its end, Unix ms, as written before, where no longer ban is in force
-- Returns { 1 when it changed something, now (Unix ms), { reason, origin, actor, since, until, level } }. A fixed ban replaces
-- the one in force; one of the ladder does not.
local now = clock()
redis.call('STRLEN', KEYS[2]) -- a wrong type fails here, before anything is written
if ARGV[3] ~= '' then
  local ban, new = ban_by_ladder(KEYS[1], KEYS[2], now, ARGV[1], ARGV[2], ARGV[3])
  return { new, now, ban }
end
local length = tonumber(ARGV[5])
if not length then return redis.error_reply('ERR ban_set: bad arguments') end
local known = ban_in_force(KEYS[1], now)
if length < 0 and (-length <= now or (known and tonumber(known[5]) >= -length)) then
  return { 0, now, known or false }
end
local ends = length < 0 and -length or now + length
local level = tonumber(redis.call('GET', KEYS[2]) or '0')
return { 1, now, write_ban(KEYS[1], now, ends, ARGV[1], ARGV[4], ARGV[2], level) }
