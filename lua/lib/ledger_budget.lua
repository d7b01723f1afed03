--- ledger_budget: caps and sums. Tokens weighted by thousandths for `total_tokens`, plain for `tokens.CATEGORY`;
-- money in nano-units for `cost.NAME`. A spend is {used, held, loose, alerts, generation, version}: `used` is what was
-- settled and what is unverified, `loose` the unverified part of it, `held` the sum of open reservations.
local ledger = require('lib.ledger')
local num = require('lib.num')

local budget = {}

local PAST_MS = 400 * 86400000 -- how long the sums of a window stay once it is over
local MAX_NAMES = 128 -- per spend; what comes later is counted as "tokens.other" and "cost.other"

function budget.spend_key(root, id, window)
  return ledger.key(root, 'spend', id .. ':' .. num.text(window))
end

function budget.new_spend()
  return { used = {}, held = {}, loose = {}, alerts = {}, generation = 0, version = 0 }
end

--- Budgets by id, without their sums and not to be changed; `id` of the first that is missing.
function budget.specs(root, ids)
  local keys, specs, missing = {}, {}, nil
  for i, id in ipairs(ids) do
    keys[i] = ledger.key(root, 'budget', id)
  end
  for i, text in ipairs(#keys > 0 and redis.call('MGET', unpack(keys)) or {}) do
    specs[i] = text and ledger.parsed(text, cmsgpack.unpack) or nil
    missing = missing or not text and ids[i] or nil
  end
  return specs, missing
end

--- Spends of (id, window) pairs.
function budget.spends(root, ids, windows)
  local keys = {}
  for i, id in ipairs(ids) do
    keys[i] = budget.spend_key(root, id, windows[i])
  end
  local spends = ledger.read(keys)
  for i in ipairs(ids) do
    spends[i] = spends[i] or budget.new_spend()
  end
  return spends, keys
end

--- How long the sums of a window are kept from now on; nil: as long as the budget.
function budget.life(spec, window, now)
  if spec.gone_at > 0 then
    return math.max(1000, spec.gone_at - now)
  end
  return window ~= spec.start and PAST_MS or nil
end

--- Has the window of a budget run out? Only a client knows calendars: it must set the next one.
function budget.is_over(spec, now)
  return spec.stop > 0 and now >= spec.stop
end

local function named(spec, spend, kind, name)
  local full, count = kind .. name, 0
  if spec.caps[full] or spend.used[full] then
    return full
  end
  for _ in pairs(spend.used) do
    count = count + 1
  end
  if count >= MAX_NAMES then
    full = kind .. 'other'
  end
  spend.used[full] = spend.used[full] or 0
  return full
end

--- What a use comes to, per name of this budget.
function budget.amounts(spec, spend, tokens, costs)
  local amounts, total = {}, 0
  local function add(kind, name, amount)
    name = named(spec, spend, kind, name)
    amounts[name] = (amounts[name] or 0) + amount
  end
  for category, count in pairs(tokens) do
    add('tokens.', category, count)
    total = total + count * (spec.weights[category] or 1000)
  end
  for name, nano in pairs(costs) do
    add('cost.', name, nano)
  end
  amounts.total_tokens = total
  return amounts
end

--- The cap that leaves less than is asked, with the figures, or nil. The first by name, to be the same every time.
function budget.refusal(spec, spend, amounts)
  local found
  for name, cap in pairs(spec.caps) do
    local asked, used, held = amounts[name] or 0, spend.used[name] or 0, spend.held[name] or 0
    if used + held + asked > cap and not (found and found.cap < name) then
      found = { cap = name, limit = cap, used = used, reserved = held, asked = asked }
    end
  end
  return found
end

--- Add `sign` times the amounts to one of the sums.
function budget.add(sums, amounts, sign)
  for name, amount in pairs(amounts) do
    local sum = (sums[name] or 0) + sign * amount
    sums[name] = sum
  end
end

return budget
