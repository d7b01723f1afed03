--- outbox_ack: entries have been relayed, others could not be: these are put aside and come again, later each time.
-- keys   1  root of the queue, or of a ledger
-- args   1  map {ids: [str], failed?: [[id, why]]}
-- reply  how many of the relayed ones there were
-- error  ARG
-- cost   O((ids + failed) x log entries); at most 500 each
local arg = require('lib.arg')
local num = require('lib.num')
local relay = require('lib.relay')

local MAX = 500

local function outbox_ack(keys, args)
  local root, map = keys[1], arg.map(args)
  local ids, failed = arg.texts(map, 'ids', MAX), relay.failed(map, MAX)
  local count = #ids > 0 and relay.forget(root, ids) or 0
  relay.defer(root, num.now(), failed)
  return count
end

return { run = outbox_ack, flags = { 'allow-oom' } }
