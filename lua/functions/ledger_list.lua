--- ledger_list: ids of the budgets, the eldest first; not of those that were let go, as flows' and jobs' own are.
-- keys   1  root of the ledger
-- args   1  map {start: int, limit: int}
-- reply  [id…]
-- error  ARG
-- cost   O(log n + limit); at most 100
local arg = require('lib.arg')
local ledger = require('lib.ledger')

local MAX = 100

local function ledger_list(keys, args)
  local map = arg.map(args)
  local start, limit = arg.int(map, 'start', 0, 1e12), arg.int(map, 'limit', 1, MAX)
  return redis.call('ZRANGE', ledger.key(keys[1], 'budgets'), start, start + limit - 1)
end

return { run = ledger_list, flags = { 'no-writes' } }
