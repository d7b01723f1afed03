--- queue_usage: the minute buckets of a span of minutes.
-- keys   1  root of the queue
-- args   1  map {first: int, last: int}, minutes since the epoch; 0 and 0: the minute of now
-- reply  per minute that has one: [minute, [field, value…]]; fields "tokens:MODEL\nCATEGORY", "costs:MODEL\nNAME",
--        "calls:MODEL\n"; preceded by the minute of now
-- error  ARG
-- cost   O(minutes); at most 120
local arg = require('lib.arg')
local layout = require('lib.layout')
local num = require('lib.num')

local MAX = 120

local function queue_usage(keys, args)
  local root, map = keys[1], arg.map(args)
  local this = math.floor(num.now() / 60000)
  local first, last = arg.int(map, 'first', 0, num.MAX), arg.int(map, 'last', 0, num.MAX)
  local rows = { this }
  for minute = first, math.min(last, first + MAX - 1) do
    local fields = redis.call('HGETALL', layout.minute(root, minute))
    if #fields > 0 then
      rows[#rows + 1] = { minute, fields }
    end
  end
  return rows
end

return { run = queue_usage, flags = { 'no-writes' } }
