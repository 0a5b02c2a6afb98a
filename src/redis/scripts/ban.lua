-- Prelude of every script that looks at bans or sets one.
--
-- A ban is a HASH: reason, origin (auto, admin), actor, since and until (Unix ms), level (its step of the ladder, from 1).
-- It expires by its key and by `until`, so one that lost its expiry ends all the same. How often a scope was banned is kept
-- beside it for LEVEL_TTL_MS after the last ban's end: the next one takes the next step of the ladder.
local LEVEL_TTL_MS = 24 * 3600 * 1000

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000), time[1] * 1000000 + time[2]
end

local function integer(number)
  return string.format('%d', number)
end

-- The ban in force as { reason, origin, actor, since, until, level }, or nil.
local function ban_in_force(key, now)
  local ban = redis.call('HMGET', key, 'reason', 'origin', 'actor', 'since', 'until', 'level')
  if ban[5] and tonumber(ban[5]) > now then return ban end
  return nil
end

-- Writes a ban that ends at `ends`.
local function write_ban(key, now, ends, reason, origin, actor, level)
  local ban = { reason, origin, actor, integer(now), integer(ends), integer(level) }
  redis.call('HSET', key, 'reason', ban[1], 'origin', ban[2], 'actor', ban[3], 'since', ban[4], 'until', ban[5],
    'level', ban[6])
  redis.call('PEXPIREAT', key, ban[5])
  return ban
end

-- Bans a scope by the next step of `ladder` (ms, separated by commas), unless it is banned already: attempts during a ban
-- neither prolong nor raise it. Returns the ban in force and 1 when it is new.
local function ban_by_ladder(key, level_key, now, reason, actor, ladder)
  local known = ban_in_force(key, now)
  if known then return known, 0 end
  local steps = {}
  for step in string.gmatch(ladder, '%d+') do steps[#steps + 1] = tonumber(step) end
  local level = math.min(tonumber(redis.call('GET', level_key) or '0') + 1, #steps)
  redis.call('SET', level_key, integer(level), 'PX', integer(steps[level] + LEVEL_TTL_MS))
  return write_ban(key, now, now + steps[level], reason, 'auto', actor, level), 1
end
