--- ledger_shares: what the end of a call changes in each of its budgets. A share is {id, window, held}: it settles into
-- the window it was reserved in.
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local log = require('lib.ledger_log')

local shares = {}

local function taken(spec, spend)
  local sums = {}
  for name in pairs(spec.caps) do
    sums[name] = (spend.used[name] or 0) + (spend.held[name] or 0)
  end
  return sums
end

--- Has room come up under a cap?
local function has_freed(before, after)
  for name, sum in pairs(after) do
    if sum < before[name] then
      return true
    end
  end
  return false
end

--- Change one budget's sums by the end of a call. `use` as in `call.finish`.
local function book(record, share, spec, spend, use)
  local before, deltas = taken(spec, spend), {}
  if use.kind == 'unverified' then
    budget.add(deltas, share.held, 1)
    budget.add(spend.loose, share.held, 1)
  elseif not use.unused then
    budget.add(deltas, budget.amounts(spec, spend, use.tokens, use.costs), 1)
  end
  if record.state == 'unverified' then
    budget.add(deltas, share.held, -1)
    budget.add(spend.loose, share.held, -1)
  elseif record.state == 'open' then
    budget.add(spend.held, share.held, -1)
  end
  budget.add(spend.used, deltas, 1)
  spend.version = spend.version + 1
  return deltas, has_freed(before, taken(spec, spend))
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
  ledger.put(tx, key, spend, budget.life(spec, share.window, tx.now))
  return freed and is_current
end

--- Stage the end of a call in its budgets. Answers those that have room for waiters: [{id, spec, spend}...].
function shares.settle(tx, id, record, use)
  local ids, windows, freed = {}, {}, {}
  for i, share in ipairs(record.budgets) do
    ids[i], windows[i] = share.id, share.window
  end
  local keys = {}
  for i, name in ipairs(ids) do
    keys[i] = ledger.key(tx.root, 'budget', name)
  end
  local specs = ledger.read(keys)
  local spends, spend_keys = budget.spends(tx.root, ids, windows)
  for i, share in ipairs(record.budgets) do
    if specs[i] and settle_share(tx, id, record, share, specs[i], spends[i], spend_keys[i], use) then
      freed[#freed + 1] = { share.id, specs[i], spends[i] }
    end
  end
  return freed
end

return shares
