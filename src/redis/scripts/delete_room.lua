-- delete_room: leaves a tombstone and removes what the room kept.
--
-- KEYS  1 log  2 meta  3 gone  4 active rooms of the partition  5 summary
-- ARGV  1 room  2 how long the tombstone stays, ms
-- Returns 1. seq and epoch stay, so that a room made anew under the same name goes on counting.
local log, meta, gone, active = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
redis.call('ZSCORE', active, ARGV[1]) -- a wrong type fails here, before anything is written
local room = open_room(log, meta)
redis.call('HSET', meta, 'deleted', string.format('%d', room.now),
  'floor_seq', string.format('%d', room.seq), 'floor_ts', string.format('%d', room.ts))
redis.call('PEXPIRE', meta, ARGV[2])
redis.call('DEL', log, gone, KEYS[5])
redis.call('ZREM', active, ARGV[1])
return 1
