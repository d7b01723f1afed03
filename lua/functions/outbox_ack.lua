--- outbox_ack: entries have been relayed.
-- keys   1  root of the queue
-- args   1  map {ids: [str]}
-- reply  how many there were
-- error  ARG
-- cost   O(ids); at most 500
local arg = require('lib.arg')
local layout = require('lib.layout')

local function outbox_ack(keys, args)
  local ids = arg.texts(arg.map(args), 'ids', 500)
  if #ids == 0 then
    return 0
  end
  return redis.call('XDEL', layout.outbox(keys[1]), unpack(ids))
end

return { run = outbox_ack, flags = { 'allow-oom' } }
