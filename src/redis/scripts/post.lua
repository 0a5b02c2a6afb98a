-- post: puts events into a room's log, in order, and tells every node that has the room joined.
--
-- KEYS  1 log  2 meta  3 archive of the partition  4 active rooms of the partition  5 live channel
--       6 size of the archive, bytes
--       where ARGV[7] is 1:  7 gone (ids of deleted messages)  8 outbox of questions to the model
--       9 replies of the room that are being written  10 summary of the room
--       then the idempotency keys
-- ARGV  1 room  2 log cap, events  3 archive cap, bytes  4 idempotency TTL ms  5 PUBLISH or SPUBLISH  6 number of events
--       7 1 where one of them changes a message, asks or is a reply: all have then the further arguments, else 0
--       then per event: 1 JSON prefix (an object without its closing brace)  2 kind  3 user
--       4 index of the idempotency key from 1, or 0  5 content hash  6 trace context or ''
--       and further:  7 target id or ''
--       8 authority: '' = the author only, 'owner' = any message, 'checked' = author checked against the archive
--       9 for what asks the model: what the room is told when the outbox is full, up to the question's id; else ''
--       10 the message's id, or '' = its place
--       11 the claim under which a reply was written, or ''
-- Returns { epoch, a text per event }: `ok seq ts epoch nodes-that-got-it 1-if-the-outbox-was-full id` or
--       `dup seq ts epoch - 0 id` of what is stored, else conflict, room_gone, not_author, not_found, elsewhere (the target is
--       below the log: ask the archive), backlog (the archive is full), superseded (a later claim writes this reply).
--
-- Event JSON is never decoded: the server's fields are appended to the prefix.
-- All checks that can fail come before the first write of an event.
local LOG_TTL_MS = 7 * 24 * 3600 * 1000       -- an idle log expires; the archive has it
local ACTIVE_MS = 60000                       -- how long a room counts as active
local RENEW_MS = 1000                         -- lives are renewed by the first event of a second: they count in minutes and days
local GONE_MAX = 20000                        -- deleted ids remembered, as many as the log holds
local TRIM_SLACK = 256                        -- trim in steps, not on every event
local OUTBOX_MAX = 10000                      -- questions that wait for a worker; what was taken in is never dropped
local ENTRY_BYTES = 100                       -- what an archive entry takes beside its JSON; trim_archive counts the same

local log, meta, archive, active, channel, archive_bytes = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local room_id, log_cap, archive_cap = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local idem_ttl, publish, count = ARGV[4], ARGV[5], tonumber(ARGV[6])
local is_plain = ARGV[7] == '0'
local keys, width = is_plain and 6 or 10, is_plain and 6 or 11
local gone, outbox, replies, summary
if not is_plain then gone, outbox, replies, summary = KEYS[7], KEYS[8], KEYS[9], KEYS[10] end
if #ARGV ~= 7 + count * width then return redis.error_reply('ERR post: wrong number of arguments') end

-- wrong key types fail here, before anything is written
local active_at = tonumber(redis.call('ZSCORE', active, room_id) or '0')
local outbox_len = 0
if not is_plain then
  redis.call('ZCARD', gone)
  redis.call('HLEN', summary)
  outbox_len = redis.call('XLEN', outbox)
end
local waiting = redis.call('XLEN', archive)
local backlog = tonumber(redis.call('GET', archive_bytes) or '0')
if waiting == 0 and backlog ~= 0 then
  -- an archive that was emptied by hand
  redis.call('DEL', archive_bytes)
  backlog = 0
end
-- one event reads its key before it writes
if count > 1 then for n = keys + 1, #KEYS do redis.call('STRLEN', KEYS[n]) end end
local room = open_room(log, meta)
local was_empty = room.len == 0

local function authorise(target, user, authority)
  if redis.call('ZSCORE', gone, target) then return 'not_found' end
  local ts, seq = string.match(target, '^(%d+)-(%d+)$')
  if not ts or #ts > 15 or #seq > 15 or string.find(ts, '^0.') or string.find(seq, '^0.') then
    return authority == 'checked' and 'ok' or 'elsewhere'
  end
  if tonumber(seq) <= room.floor_seq then return authority == 'checked' and 'ok' or 'elsewhere' end
  local entry = redis.call('XRANGE', log, target, target)[1]
  if not entry then return 'not_found' end
  local fields = entry[2]
  local kind, author
  for i = 1, #fields, 2 do
    if fields[i] == 'k' then kind = fields[i + 1] elseif fields[i] == 'u' then author = fields[i + 1] end
  end
  if kind ~= 'message' and kind ~= 'gpt' then return 'not_found' end
  if author ~= user and authority ~= 'owner' then return 'not_author' end
  return 'ok'
end

-- What was taken back or put right must not live on in the summary, nor in one that is being written.
local function forget(target, seq)
  redis.call('HSET', meta, 'changed', seq)
  local covered = tonumber(redis.call('HGET', summary, 'seq') or '0')
  local changed = tonumber(string.match(target, '^%d+%-(%d+)') or '0')
  if changed <= covered then redis.call('DEL', summary) end
end

local results = { room.epoch }
local posted = false
for n = 1, count do
  local base = 7 + (n - 1) * width
  local prefix, kind, user = ARGV[base + 1], ARGV[base + 2], ARGV[base + 3]
  local idem, hash, trace = tonumber(ARGV[base + 4]), ARGV[base + 5], ARGV[base + 6]
  local target, authority, refusal, own_id, generation = '', '', '', '', ''
  if not is_plain then
    target, authority, refusal = ARGV[base + 7], ARGV[base + 8], ARGV[base + 9]
    own_id, generation = ARGV[base + 10], ARGV[base + 11]
  end
  local idem_key = idem > 0 and KEYS[keys + idem] or nil
  local status = 'ok'
  local known = idem_key and redis.call('GET', idem_key)
  if known then
    local old_hash, epoch, seq, ts, id = string.match(known, '^(.-)|(.-)|(.-)|(.-)|(.-)$')
    results[#results + 1] = old_hash == hash and table.concat({ 'dup', seq, ts, epoch, '- 0', id }, ' ') or 'conflict'
  else
    if room.deleted then
      status = 'room_gone'
    elseif backlog >= archive_cap then
      status = 'backlog'
    elseif target ~= '' then
      status = authorise(target, user, authority)
    elseif generation ~= '' then
      local writing = redis.call('HGET', replies, own_id)
      if writing and tonumber(string.match(writing, '^%d+')) > tonumber(generation) then status = 'superseded' end
    end
    if status ~= 'ok' then
      results[#results + 1] = status
    else
      room.seq = room.seq + 1
      room.ts = math.max(room.now, room.ts + 1)
      local seq, ts = string.format('%d', room.seq), string.format('%d', room.ts)
      local position = ts .. '-' .. seq
      local id = target ~= '' and target or own_id ~= '' and own_id or position
      local json = prefix .. ',"id":"' .. id .. '","timestamp":' .. ts .. ',"ts":' .. ts .. ',"seq":' .. seq
        .. ',"epoch":"' .. room.epoch .. '"' .. (target ~= '' and (',"rev":' .. seq) or '') .. '}'
      redis.call('XADD', log, position, 'k', kind, 'u', user, 'p', room.epoch, 't', trace, 'e', json)
      redis.call('HSET', meta, 'seq', seq, 'ts', ts)
      if room.len == 0 then
        -- the log had expired: from now on meta alone says that what it held is below the floor
        redis.call('HSET', meta, 'floor_seq', string.format('%d', room.floor_seq),
          'floor_ts', string.format('%d', room.floor_ts))
      end
      redis.call('XADD', archive, '*', 'r', room_id, 's', seq, 'e', json)
      backlog = redis.call('INCRBY', archive_bytes, #json + ENTRY_BYTES)
      local is_refused = refusal ~= '' and outbox_len >= OUTBOX_MAX
      if refusal ~= '' and not is_refused then
        redis.call('XADD', outbox, '*', 'r', room_id, 'i', id, 'u', user, 't', trace)
        redis.call('PUBLISH', 'rc:{gpt}:asked', '') -- wakes the workers, on a cluster those of every server
        outbox_len = outbox_len + 1
      end
      if target ~= '' then forget(target, seq) end
      if kind == 'delete' then
        redis.call('ZADD', gone, ts, target)
        redis.call('ZREMRANGEBYRANK', gone, 0, -GONE_MAX - 1)
        redis.call('PEXPIRE', gone, META_TTL_MS)
      end
      if generation ~= '' then redis.call('HDEL', replies, own_id) end
      if idem_key then
        redis.call('SET', idem_key, hash .. '|' .. room.epoch .. '|' .. seq .. '|' .. ts .. '|' .. id, 'PX', idem_ttl)
      end
      local receivers = redis.call(publish, channel,
        position .. ' ' .. room.epoch .. ' ' .. kind .. ' ' .. (trace ~= '' and trace or '-') .. ' ' .. json)
      -- Behind the message, and without an end to be remembered: nobody else knows of this question.
      if is_refused then redis.call(publish, channel, refusal .. ',"id":"' .. id .. '-r"}') end
      results[#results + 1] = 'ok ' .. seq .. ' ' .. ts .. ' ' .. room.epoch .. ' ' .. receivers
        .. (is_refused and ' 1 ' or ' 0 ') .. id
      room.len = room.len + 1
      posted = true
    end
  end
end

if posted then
  if room.len > log_cap + TRIM_SLACK then
    local cut = redis.call('XRANGE', log, '-', '+', 'COUNT', room.len - log_cap)
    raise_floor(log, meta, cut[#cut][1])
  end
  redis.call('ZADD', active, room.ts, room_id)
  if was_empty or math.floor(active_at / RENEW_MS) ~= math.floor(room.ts / RENEW_MS) then
    redis.call('ZREMRANGEBYSCORE', active, '-inf', room.now - ACTIVE_MS)
    redis.call('PEXPIRE', log, LOG_TTL_MS)
    redis.call('PEXPIRE', meta, META_TTL_MS)
  end
end
return results
