--- ledger_get: budgets and limiters as they are now.
-- keys   1  root of the ledger
-- args   1  map {budgets?: [id], limiters?: [name]}
-- reply  packed [now, [[spec, spend, how many wait] or false…], [[state, places taken] or false…]]; the debts of a
--        limiter have leaked up to now
-- error  ARG
-- cost   O(names); at most 100 each
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local conf = require('lib.ledger_conf')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local num = require('lib.num')

local MAX = 100

local function get_budget(root, id)
  local spec = budget.specs(root, { id })[1]
  if not spec then
    return false
  end
  local spend = budget.spends(root, { id }, { spec.start })[1]
  return { spec, spend, redis.call('ZCARD', ledger.key(root, 'waiters', id)) }
end

local function get_limiter(root, now, name)
  local state = ledger.read({ ledger.key(root, 'limiter', name) })[1]
  if not state then
    return false
  end
  limiter.advance(state, conf.of(state.conf), now)
  return { state, redis.call('ZCOUNT', ledger.key(root, 'slots', name), '(' .. num.text(now), '+inf') }
end

local function ledger_get(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local budgets, limiters = {}, {}
  for i, id in ipairs(arg.texts(map, 'budgets', MAX)) do
    budgets[i] = get_budget(root, id)
  end
  for i, name in ipairs(arg.texts(map, 'limiters', MAX)) do
    limiters[i] = get_limiter(root, now, name)
  end
  return cmsgpack.pack({ now, budgets, limiters })
end

return { run = ledger_get, flags = { 'no-writes' } }
