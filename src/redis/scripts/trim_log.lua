-- trim_log: removes from a room's log what is archived and old enough.
--
-- KEYS  1 log  2 meta
-- ARGV  1 number up to which events are archived  2 events to keep at least  3 age of the events to keep at least, ms
-- Returns how many were removed, at most TRIM_MAX at once: what is left goes with a later call.
local TRIM_MAX = 2000

local log, meta = KEYS[1], KEYS[2]
local archived, keep, keep_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not archived or not keep or not keep_ms then return redis.error_reply('ERR trim_log: bad arguments') end
local room = open_room(log, meta)
local upto = math.min(archived, room.seq - keep, room.floor_seq + TRIM_MAX)
if room.len == 0 or upto <= room.floor_seq then return 0 end
-- The newest entry that is old enough; no id has a time below 0.
local old = redis.call('XREVRANGE', log, string.format('%d', math.max(0, room.now - keep_ms)), '-', 'COUNT', 1)[1]
if not old then return 0 end
local id = entry_of_seq(log, room, math.min(upto, seq_of(old[1])))
if not id then return 0 end
return raise_floor(log, meta, id)
