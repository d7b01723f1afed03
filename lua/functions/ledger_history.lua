--- ledger_history: the log of a budget, or the alerts of all, newest first.
-- keys   1  root of the ledger
-- args   1  map {id: str ("": the alerts), before: str (an entry id, "": the newest), limit: int}
-- reply  [entry id, [field, value…]]… as a stream has them; a budget's log has one field `line`, see lib/ledger_log.lua
-- error  ARG
-- cost   O(limit); at most 1,000
local arg = require('lib.arg')
local ledger = require('lib.ledger')

local MAX = 1000

local function ledger_history(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, before = arg.text(map, 'id'), arg.text(map, 'before')
  local key = id == '' and ledger.key(root, 'events') or ledger.key(root, 'entries', id)
  local last = before == '' and '+' or '(' .. before
  return redis.call('XREVRANGE', key, last, '-', 'COUNT', arg.int(map, 'limit', 1, MAX))
end

return { run = ledger_history, flags = { 'no-writes' } }
