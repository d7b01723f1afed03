--- queue_usage: the buckets of a span of minutes or hours.
-- keys   1  root of the queue
-- args   1  map {first: int, last: int, hours?: bool}, minutes (hours) since the epoch; 0 and 0: the one of now
-- reply  per minute (hour) that has one: [its number, [field, value…]]; fields "tokens:MODEL\nCATEGORY",
--        "costs:MODEL\nNAME", "calls:MODEL\n"; preceded by the number of now
-- error  ARG
-- cost   O(minutes); at most 120
local arg = require('lib.arg')
local layout = require('lib.layout')
local num = require('lib.num')

local MAX = 120

local function queue_usage(keys, args)
  local root, map = keys[1], arg.map(args)
  local unit, key = map.hours and 3600000 or 60000, map.hours and layout.hour or layout.minute
  local first, last = arg.int(map, 'first', 0, num.MAX), arg.int(map, 'last', 0, num.MAX)
  local rows = { math.floor(num.now() / unit) }
  for number = first, math.min(last, first + MAX - 1) do
    local fields = redis.call('HGETALL', key(root, number))
    if #fields > 0 then
      rows[#rows + 1] = { number, fields }
    end
  end
  return rows
end

return { run = queue_usage, flags = { 'no-writes' } }
