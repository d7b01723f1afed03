--- queue_limits: the limiters that the model calls of all jobs of this queue pass.
-- keys   1  root of the queue
-- args   none
-- reply  [version, JSON list as `limits` of queue_limit, or ""]
-- error  none
-- cost   O(1)
local layout = require('lib.layout')
local num = require('lib.num')

local function queue_limits(keys)
  local found = redis.call('HMGET', layout.meta(keys[1]), 'limits_version', 'limits')
  return { num.of(found[1], 0), found[2] or '' }
end

return { run = queue_limits, flags = { 'no-writes' } }
