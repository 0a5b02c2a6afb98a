-- gcra_take: takes a cost from the rate of a scope.
--
-- KEYS  1 arrival time of the rate
-- ARGV  1 interval, µs  2 burst  3 cost  4 '1': it was spent already, so take it in any case, with a
--       debt of at most one burst
-- Returns { 1 when it is within the rate, else 0, ms after which it would be }
local interval, burst, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not interval or not burst or not cost then return redis.error_reply('ERR gcra_take: bad arguments') end
local _, now_us = clock()
local arrival, wait = arrival_after(KEYS[1], now_us, interval, burst, cost)
if not arrival and ARGV[4] == '1' then
  local owed = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now_us) + cost * interval
  owed = math.min(owed, now_us + 2 * burst * interval)
  write_arrival(KEYS[1], now_us, owed)
  return { 0, math.max(1, math.ceil((owed - now_us - (burst - 1) * interval) / 1000)) }
end
if not arrival then return { 0, wait } end
write_arrival(KEYS[1], now_us, arrival)
return { 1, 0 }
