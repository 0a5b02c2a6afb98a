-- gpt_worker: a worker shows that it is there; those that have been silent for long are forgotten.
--
-- KEYS  1 workers (HASH: name, `seen|since|slots`)  2 ready jobs
-- ARGV  1 worker  2 since when it runs, Unix ms  3 questions it answers at once  4 after how long others are forgotten, ms
-- Returns nothing.
local forget = tonumber(ARGV[4])
if not forget then return redis.error_reply('ERR gpt_worker: bad arguments') end
local now = now_ms()
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local seen = tonumber(string.match(redis.call('HGET', KEYS[1], name), '^%d+') or '0')
  if now - seen > forget then redis.call('HDEL', KEYS[1], name) end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', now) .. '|' .. ARGV[2] .. '|' .. ARGV[3])
-- Every process is a consumer of its own; those that have nothing any more would stay for ever.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[2], GROUP)
if consumers.err then return end
for _, fields in ipairs(consumers) do
  local info = {}
  for i = 1, #fields, 2 do info[fields[i]] = fields[i + 1] end
  if info.pending == 0 and info.idle > forget and redis.call('HEXISTS', KEYS[1], info.name) == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[2], GROUP, info.name)
  end
end
