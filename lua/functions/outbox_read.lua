--- outbox_read: what is to be relayed to other slots: the oldest entries, then those put aside whose time has come.
-- keys   1  root of the queue
-- args   1  map {limit: int, retries?: int (of those put aside, default none)}
-- reply  [[id, [field, value…], subject ('': none), 1 if it has to wait for another one of this subject, tries that
--        were in vain]…]; one without fields is only to be acknowledged
-- error  ARG
-- cost   O(limit + retries); at most 500 each
local arg = require('lib.arg')
local num = require('lib.num')
local relay = require('lib.relay')

local MAX = 500

local function outbox_read(keys, args)
  local map = arg.map(args)
  local limit, retries = arg.int(map, 'limit', 1, MAX), arg.int(map, 'retries', 0, MAX, 0)
  return relay.read(keys[1], num.now(), limit, retries, '+')
end

return { run = outbox_read, flags = { 'no-writes' } }
