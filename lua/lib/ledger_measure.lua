--- ledger_measure: tokens and money by the names of budgets: "tokens.CATEGORY" plain, "cost.NAME" in nano-units, and
-- "total_tokens", weighted by the thousandths of each budget.
local measure = {}

local MONEY = 'cost.'
local MAX_NAMES = 128 -- per spend; what comes later is counted as "tokens.other" and "cost.other"

--- Tokens and money, to be measured by budgets. Those of the same total share one map of amounts.
function measure.of(tokens, costs)
  local named = {}
  for category, count in pairs(tokens) do
    named['tokens.' .. category] = count
  end
  for name, nano in pairs(costs) do
    named['cost.' .. name] = nano
  end
  return { tokens = tokens, named = named, by_total = {} }
end

--- Is it a sum of money?
function measure.is_money(name)
  return string.sub(name, 1, #MONEY) == MONEY
end

--- The first by name of the caps on money that can't hold a use, for it names neither that cost nor a total. Or nil.
function measure.unpriced(caps, use)
  local named, found = use.named, nil
  if named['cost.total'] then
    return nil
  end
  for name in pairs(caps) do
    if measure.is_money(name) and not named[name] and not (found and found < name) then
      found = name
    end
  end
  return found
end

local function amounts_of(use, total)
  local amounts = { total_tokens = total }
  for name, amount in pairs(use.named) do
    amounts[name] = amount
  end
  use.by_total[total] = amounts
  return amounts
end

local function has_room(used)
  local count = 0
  for _ in pairs(used) do
    count = count + 1
  end
  return count < MAX_NAMES
end

--- Give each new name a place among a budget's sums, or count it as another.
local function place(spec, used, amounts)
  local placed = {}
  for name, amount in pairs(amounts) do
    if not (used[name] or spec.caps[name] or name == 'total_tokens' or has_room(used)) then
      name = string.match(name, '^%a+%.') .. 'other'
    end
    used[name] = used[name] or 0
    placed[name] = (placed[name] or 0) + amount
  end
  return placed
end

--- What a use comes to, per name of a budget. The answer is shared: nobody may change it.
function measure.under(spec, spend, use)
  local total, weights, used = 0, spec.weights, spend.used
  for category, count in pairs(use.tokens) do
    total = total + count * (weights[category] or 1000)
  end
  local amounts = use.by_total[total] or amounts_of(use, total)
  for name in pairs(amounts) do
    if not used[name] then
      return place(spec, used, amounts)
    end
  end
  return amounts
end

return measure
