-- read: a room's position and a page of its log, as one consistent answer.
--
-- KEYS  1 log  2 meta
-- ARGV  1 lower bound: none | id (exclusive position) | time (exclusive ms) | seq (exclusive number)  2 its value
--       3 order: asc (the oldest above the bound) | desc (the newest above it; returned ascending)
--       4 limit, entries  5 limit, bytes of event JSON  6 '1' when the room service says that the room exists
-- Returns { epoch, epochs, seq, ts, floor seq, floor ts, deleted (0 or 1), more (0 or 1), entries }, an entry being one text as
--       on the live channel, `position epoch kind - JSON`: a client reads a page from the start whenever more of it has come, so
--       it has as few parts as can be. An order of `desc` with `more` means that older ones were left out.
local REVIVE_MS = 10000   -- a tombstone younger than this may be news that the room service's answer has not seen
local PAGE = 100          -- entries fetched at once, so that the byte limit bounds the work
local LAST_ID = '18446744073709551615-18446744073709551615'   -- Redis knows no interval above it

local log, meta = KEYS[1], KEYS[2]
local bound, value, order = ARGV[1], ARGV[2], ARGV[3]
local limit, max_bytes, exists = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local room = open_room(log, meta)

if room.deleted and exists == '1' and room.now - tonumber(room.deleted) > REVIVE_MS then
  redis.call('HDEL', meta, 'deleted')
  room.deleted = false
end

local function after_seq(log, room, wanted)
  local id = entry_of_seq(log, room, wanted)
  return id and '(' .. id or '-'
end

local lower
if bound == 'none' then lower = '-'
elseif bound == 'id' then lower = value == LAST_ID and '+' or '(' .. value
elseif bound == 'time' then lower = string.format('%d', tonumber(value) + 1)
elseif bound == 'seq' then lower = after_seq(log, room, tonumber(value))
else return redis.error_reply('ERR read: unknown bound') end

local entries, bytes, more = {}, 0, 0
local from, to = lower, '+'
while limit > 0 do
  local page
  local want = math.min(PAGE, limit - #entries + 1)
  if order == 'asc' then
    page = redis.call('XRANGE', log, from, to, 'COUNT', want)
  else
    page = redis.call('XREVRANGE', log, to, from, 'COUNT', want)
  end
  local full = false
  for _, entry in ipairs(page) do
    local fields = entry[2]
    local kind, epoch, json
    for i = 1, #fields, 2 do
      if fields[i] == 'k' then kind = fields[i + 1]
      elseif fields[i] == 'p' then epoch = fields[i + 1]
      elseif fields[i] == 'e' then json = fields[i + 1] end
    end
    bytes = bytes + #json
    if #entries >= limit or (bytes > max_bytes and #entries > 0) then
      more, full = 1, true
      break
    end
    entries[#entries + 1] = entry[1] .. ' ' .. epoch .. ' ' .. kind .. ' - ' .. json
  end
  if full or #page < want then break end
  if order == 'asc' then from = '(' .. page[#page][1] else to = '(' .. page[#page][1] end
end

if order == 'desc' then
  local reversed = {}
  for i = #entries, 1, -1 do reversed[#reversed + 1] = entries[i] end
  entries = reversed
end
return {
  room.epoch, room.epochs, string.format('%d', room.seq), string.format('%d', room.ts),
  string.format('%d', room.floor_seq), string.format('%d', room.floor_ts), room.deleted and 1 or 0, more, entries,
}
