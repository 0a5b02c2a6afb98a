-- Prelude of every script that limits a rate, by the generic cell rate algorithm (ITU-T I.371): the key holds the
-- theoretical arrival time, µs; a cost is allowed while that lies at most `burst` intervals ahead of now.
--
-- Returns the arrival time to write with write_arrival, or nil and after how many ms the cost would be allowed.
local function arrival_after(key, now_us, interval_us, burst, cost)
  local arrival = math.max(tonumber(redis.call('GET', key) or '0'), now_us) + cost * interval_us
  local ahead = arrival - now_us - burst * interval_us
  if ahead > 0 then return nil, math.ceil(ahead / 1000) end
  return arrival, 0
end

local function write_arrival(key, now_us, arrival)
  redis.call('SET', key, string.format('%d', arrival), 'PX', string.format('%d', math.ceil((arrival - now_us) / 1000) + 1))
end
