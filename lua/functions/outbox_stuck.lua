--- outbox_stuck: entries of an outbox that could not be relayed so far, by when they are tried again.
-- keys   1  root of the queue, or of a ledger
-- args   1  map {limit: int}
-- reply  [[id, tries, since ms, why ('': it waits for another one about the same job), due ms, [field, value…]]…]
-- error  ARG
-- cost   O(limit); at most 100
local arg = require('lib.arg')
local relay = require('lib.relay')

local function outbox_stuck(keys, args)
  return relay.list(keys[1], arg.int(arg.map(args), 'limit', 1, 100))
end

return { run = outbox_stuck, flags = { 'no-writes' } }
