--- outbox_read: the oldest entries that are to be relayed to other slots.
-- keys   1  root of the queue
-- args   1  map {limit: int}
-- reply  [[id, [field, value…]]…]
-- error  ARG
-- cost   O(limit); at most 500
local arg = require('lib.arg')
local layout = require('lib.layout')

local function outbox_read(keys, args)
  local limit = arg.int(arg.map(args), 'limit', 1, 500)
  return redis.call('XRANGE', layout.outbox(keys[1]), '-', '+', 'COUNT', limit)
end

return { run = outbox_read, flags = { 'no-writes' } }
