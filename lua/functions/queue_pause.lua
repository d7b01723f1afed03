--- queue_pause: stop or resume giving out jobs; running ones go on.
-- keys   1  root of the queue
-- args   1  map {paused: bool}
-- reply  1
-- error  ARG
-- cost   O(1)
local arg = require('lib.arg')
local event = require('lib.event')
local layout = require('lib.layout')
local reply = require('lib.reply')
local wake = require('lib.wake')

local function queue_pause(keys, args)
  local root, map = keys[1], arg.map(args)
  if type(map.paused) ~= 'boolean' then
    reply.fail('ARG', 'paused not true or false')
  end
  if map.paused then
    redis.call('HSET', layout.meta(root), 'paused', 1)
  else
    redis.call('HDEL', layout.meta(root), 'paused')
    wake.push(root)
  end
  event.append(root, { map.paused and 'paused' or 'resumed', '' })
  return 1
end

return { run = queue_pause, flags = { 'allow-oom' } }
