--- ledger_budget: caps and sums. Tokens weighted by thousandths for `total_tokens`, plain for `tokens.CATEGORY`;
-- money in nano-units for `cost.NAME`. A spend is {used, held, loose, alerts, generation, version}: `used` is what was
-- settled and what is unverified, `loose` the unverified part of it, `held` the sum of open reservations.
local ledger = require('lib.ledger')
local memory = require('lib.ledger_memory')
local num = require('lib.num')

local budget = {}

local PAST_MS = 400 * 86400000 -- how long the sums of a window stay once it is over

function budget.spend_key(root, id, window)
  return ledger.key(root, 'spend', id .. ':' .. num.text(window))
end

function budget.new_spend()
  return { used = {}, held = {}, loose = {}, alerts = {}, generation = 0, version = 0 }
end

--- A budget of its text, or nil: without its sums, and not to be changed.
function budget.parsed(text)
  return text and memory.parsed(text, cmsgpack.unpack) or nil
end

--- Budgets by id, as `parsed` gives them.
function budget.specs(root, ids)
  local keys, specs = {}, {}
  for i, id in ipairs(ids) do
    keys[i] = ledger.key(root, 'budget', id)
  end
  for i, text in ipairs(#keys > 0 and redis.call('MGET', unpack(keys)) or {}) do
    specs[i] = budget.parsed(text)
  end
  return specs
end

--- Specs and spends of shares [{id, window}...], by one read; the keys of the spends. A spec that is gone is nil.
function budget.of_shares(root, shares)
  local keys, specs, spends, spend_keys = {}, {}, {}, {}
  for i, share in ipairs(shares) do
    local spend_key = budget.spend_key(root, share.id, share.window)
    keys[2 * i - 1], keys[2 * i], spend_keys[i] = ledger.key(root, 'budget', share.id), spend_key, spend_key
  end
  local texts = #keys > 0 and redis.call('MGET', unpack(keys)) or {}
  for i, key in ipairs(spend_keys) do
    local spec, spend = texts[2 * i - 1], texts[2 * i]
    specs[i] = budget.parsed(spec)
    spends[i] = spend and memory.take(key, spend) or budget.new_spend()
  end
  return specs, spends, spend_keys
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

--- Add `sign` times the amounts to sums, and answer them.
function budget.add(sums, amounts, sign)
  for name, amount in pairs(amounts) do
    sums[name] = (sums[name] or 0) + sign * amount
  end
  return sums
end

return budget
