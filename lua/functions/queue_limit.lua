--- queue_limit: say which limiters the model calls of all jobs of this queue pass. Workers hear of it in their next
-- turn.
-- keys   1  root of the queue
-- args   1  map {limits: JSON list of limiters as Throttle.wire gives them; "[]": none}
-- reply  1
-- error  ARG
-- cost   O(1)
local arg = require('lib.arg')
local layout = require('lib.layout')
local wake = require('lib.wake')

local function queue_limit(keys, args)
  local root, limits = keys[1], arg.text(arg.map(args), 'limits')
  local meta = layout.meta(root)
  redis.call('HSET', meta, 'limits', limits)
  redis.call('HINCRBY', meta, 'limits_version', 1)
  wake.push(root)
  return 1
end

return { run = queue_limit, flags = { 'allow-oom' } }
