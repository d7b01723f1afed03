--- num: exact integers and the server's clock. `tostring` keeps only 14 digits.
local num = {}

num.MAX = 9007199254740992 -- 2^53: the first integer that a double can't tell from its neighbour

function num.text(value)
  return string.format('%.0f', value)
end

--- Milliseconds since the epoch, by the server's clock.
function num.now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

--- A stored integer, or `default` where the field is absent.
function num.of(text, default)
  return tonumber(text or false) or default
end

return num
