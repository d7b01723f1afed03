--- queue_counts: how many jobs each index holds, and whether the queue is paused.
-- keys   1  root of the queue
-- args   none
-- reply  [index, count, index, count…, "paused", 0 or 1]
-- error  none
-- cost   O(1)
local layout = require('lib.layout')

local function queue_counts(keys)
  local root, counts = keys[1], {}
  for _, index in ipairs(layout.INDEXES) do
    counts[#counts + 1] = index
    counts[#counts + 1] = redis.call('ZCARD', layout.index(root, index))
  end
  counts[#counts + 1] = 'paused'
  counts[#counts + 1] = redis.call('HEXISTS', layout.meta(root), 'paused')
  return counts
end

return { run = queue_counts, flags = { 'no-writes' } }
