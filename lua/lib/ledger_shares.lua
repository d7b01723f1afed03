--- ledger_shares: what the end of a call changes in each of its budgets. A share is {id, window, held}: it settles into
-- the window it was reserved in.
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local log = require('lib.ledger_log')
local measure = require('lib.ledger_measure')

local shares = {}

local NOTHING = {}

--- What a use comes to under a budget. Tokens of which nobody knows the cost have cost what was set aside for them.
local function spent(spec, spend, held, use)
  local amounts = measure.under(spec, spend, use.measured)
  if not use.unpriced then
    return amounts
  end
  local all = budget.add({}, amounts, 1)
  for name, nano in pairs(held) do
    if measure.is_money(name) then
      all[name] = nano
    end
  end
  return all
end

--- Does room come up under a cap, when the used sums gain `deltas` and `freed` is held no more?
local function makes_room(spec, deltas, freed)
  for name in pairs(spec.caps) do
    if (deltas[name] or 0) < (freed[name] or 0) then
      return true
    end
  end
  return false
end

--- Change one budget's sums by the end of a call. `use` as in `call.finish`.
local function book(record, share, spec, spend, use)
  local deltas, freed = NOTHING, NOTHING
  if use.kind == 'unverified' then
    deltas = share.held
    budget.add(spend.loose, share.held, 1)
  elseif not use.unused then
    deltas = spent(spec, spend, share.held, use)
  end
  if record.state == 'unverified' then
    deltas = budget.add(budget.add({}, deltas, 1), share.held, -1)
    budget.add(spend.loose, share.held, -1)
  elseif record.state == 'open' then
    budget.add(spend.held, share.held, -1)
    freed = share.held
  end
  budget.add(spend.used, deltas, 1)
  spend.version = spend.version + 1
  return deltas, makes_room(spec, deltas, freed)
end

--- Stage what one budget has to learn; answers true if it has room for waiters now.
local function settle_share(tx, id, record, share, spec, spend, key, use)
  local deltas, freed = book(record, share, spec, spend, use)
  local is_current = share.window == spec.start
  if next(deltas) then
    log.entry(tx.root, share.id, share.window, use.kind, id, deltas, spend, use.note)
  end
  if is_current then
    log.alert(tx.root, share.id, spec, spend)
  end
  ledger.put(tx, key, spend, budget.life(spec, share.window, tx.now), true)
  return freed and is_current
end

--- Stage the end of a call in its budgets. Answers those that have room for waiters: [{id, spec, spend}...].
function shares.settle(tx, id, record, use)
  local freed, specs, spends, spend_keys = {}, budget.of_shares(tx.root, record.budgets)
  for i, share in ipairs(record.budgets) do
    if specs[i] and settle_share(tx, id, record, share, specs[i], spends[i], spend_keys[i], use) then
      freed[#freed + 1] = { share.id, specs[i], spends[i] }
    end
  end
  return freed
end

return shares
