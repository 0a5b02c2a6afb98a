-- Prelude of every script that reads or writes a room's position.
--
-- open_room(log, meta) returns the room's state and opens a new epoch when this server is not the one that wrote last:
-- `master_replid` changes on every restart and failover, so a tail that was lost there is always announced.
-- EPOCHS_MAX bounds the list of (epoch, first seq): older cursors are answered "cannot be proven".
local EPOCHS_MAX = 16
local META_TTL_MS = 30 * 24 * 3600 * 1000     -- longer than the log, so that seq goes on

local function now_ms(time)
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function open_room(log, meta)
  local m = redis.call('HMGET', meta, 'boot', 'epoch', 'seq', 'ts', 'floor_seq', 'floor_ts', 'deleted', 'epochs')
  local len = redis.call('XLEN', log)
  local time = redis.call('TIME')
  local room = {
    boot = m[1], epoch = m[2], seq = tonumber(m[3] or '0'), ts = tonumber(m[4] or '0'),
    floor_seq = tonumber(m[5] or '0'), floor_ts = tonumber(m[6] or '0'), deleted = m[7], epochs = m[8] or '',
    len = len, now = now_ms(time),
  }
  if len == 0 then
    -- an idle log has expired: all of it is below the floor
    room.floor_seq, room.floor_ts = room.seq, room.ts
  end
  local boot = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  if boot ~= room.boot then
    room.boot = boot
    room.epoch = string.sub(boot, 1, 8) .. '-' .. string.format('%d%06d', time[1], time[2])
    local list = {}
    for item in string.gmatch(room.epochs, '[^,]+') do list[#list + 1] = item end
    list[#list + 1] = room.epoch .. '=' .. string.format('%d', room.seq + 1)
    while #list > EPOCHS_MAX do table.remove(list, 1) end
    room.epochs = table.concat(list, ',')
    redis.call('HSET', meta, 'boot', boot, 'epoch', room.epoch, 'epochs', room.epochs)
    -- also a room that is only ever read is forgotten; a life that is set already, a tombstone's, stays
    if redis.call('PTTL', meta) < 0 then redis.call('PEXPIRE', meta, META_TTL_MS) end
  end
  return room
end

local function seq_of(position)
  return tonumber(string.match(position, '-(%d+)$'))
end

-- The id of the newest entry with seq <= wanted, or nil: ts rises with seq, so the time axis can be halved.
local function entry_of_seq(log, room, wanted)
  local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if not first or wanted < seq_of(first[1]) then return nil end
  local low, high = tonumber(string.match(first[1], '^(%d+)')), room.ts
  while low < high do
    local mid = math.floor((low + high + 1) / 2)
    local entry = redis.call('XRANGE', log, string.format('%d', mid), '+', 'COUNT', 1)[1]
    if entry and seq_of(entry[1]) <= wanted then low = mid else high = mid - 1 end
  end
  local entry = redis.call('XRANGE', log, string.format('%d', low), '+', 'COUNT', 1)[1]
  return entry and entry[1]
end

-- Removes everything up to and with the entry of this id, which then is the floor.
local function raise_floor(log, meta, id)
  local ts, seq = string.match(id, '^(%d+)-(%d+)$')
  redis.call('HSET', meta, 'floor_seq', seq, 'floor_ts', ts)
  return redis.call('XTRIM', log, 'MINID', ts .. '-' .. string.format('%d', tonumber(seq) + 1))
end
