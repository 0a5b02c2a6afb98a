-- block: blocks a scope unless it is blocked already; attempts during a block neither prolong nor raise it.
--
-- KEYS  1 ban of the scope
-- ARGV  1 reason  2 duration, ms
-- Returns { 1 when the block is new, reason, ms left }
local reason = redis.call('GET', KEYS[1])
if reason then
  local left = redis.call('PTTL', KEYS[1])
  if left > 0 then return { 0, reason, left } end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return { 1, ARGV[1], tonumber(ARGV[2]) }
