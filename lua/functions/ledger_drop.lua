--- ledger_drop: let a budget go after a while (a flow's budget outlives its flow by days). Until then it works on.
-- Who waits for it is woken, and told at the next refusal until when it is there.
-- keys   1  root of the ledger
-- args   1  map {id, after_ms: int}
-- reply  1 done, 0 there is no such budget
-- error  ARG
-- cost   O(waiters); at most 100,000 of them are woken
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local num = require('lib.num')
local wake = require('lib.ledger_wake')

local MAX_ROUNDS = 100 -- of 1,000 waiters each
local OWNED = { 'entries', 'waiters', 'waits', 'woken' }

local function ledger_drop(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, after = arg.text(map, 'id'), arg.int(map, 'after_ms', 1, 400 * ledger.DAY_MS)
  local spec = ledger.read({ ledger.key(root, 'budget', id) })[1]
  if not spec then
    return 0
  end
  local tx = ledger.begin(root, now)
  spec.gone_at = now + after
  ledger.put(tx, ledger.key(root, 'budget', id), spec, after)
  ledger.commit(tx)
  local spend = budget.spends(root, { id }, { spec.start })[1]
  for _ = 1, MAX_ROUNDS do
    if #wake.one(root, now, id, spec, spend, true) == 0 then
      break
    end
  end
  redis.call('PEXPIRE', budget.spend_key(root, id, spec.start), after)
  for _, kind in ipairs(OWNED) do
    redis.call('PEXPIRE', ledger.key(root, kind, id), after)
  end
  redis.call('ZREM', ledger.key(root, 'budgets'), id)
  if spec.gone_at < spec.stop then -- else it has windows to come, as long as it is there
    redis.call('ZREM', ledger.key(root, 'windows'), id)
  end
  return 1
end

return { run = ledger_drop, flags = { 'allow-oom' } }
