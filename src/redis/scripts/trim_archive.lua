-- trim_archive: removes events that are saved from the archive of a partition.
--
-- KEYS  1 archive  2 its size, bytes
-- ARGV  ids of the entries
-- Returns how many were removed. An entry that another worker has removed already is not counted twice.
local ENTRY_BYTES = 100   -- what an entry takes beside its JSON; post counts the same

local archive, size = KEYS[1], KEYS[2]
redis.call('GET', size) -- a wrong type fails here, before anything is removed
local removed, bytes = 0, 0
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', archive, id, id)[1]
  if entry then
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'e' then bytes = bytes + #entry[2][i + 1] + ENTRY_BYTES end
    end
    removed = removed + redis.call('XDEL', archive, id)
  end
end
if redis.call('XLEN', archive) == 0 then
  redis.call('DEL', size)
elseif bytes > 0 then
  redis.call('DECRBY', size, bytes)
end
return removed
