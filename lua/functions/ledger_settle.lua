--- ledger_settle: replace what was reserved for a call by what it used, once. A call nobody reserved is booked as well.
-- keys   1  root of the ledger
-- args   1  map {call, tokens: {category: int}, costs: {name: nano} (none for tokens whose cost is not known: what was
--           set aside for them counts), unused?: bool (it was never sent: a release), outcome?: "ok" | "limited" |
--           "error" | "none", retry_after_ms?: int, remaining?: {axis: int}, started_ms?: when its run began,
--           by the server (default: now), budgets?: [id] (for a call nobody reserved), note?: str}
-- reply  packed [verdict, outbox entries [[entry, queue root, budget, generation, job ids by line]], ...]:
--        "settled"; "late" (it had lapsed, and counts all the same); "already"; "booked" (nobody had reserved it);
--        "refused" (older than a day: logged, not added); "renew", [], now, [[budget, window, zone]] (see ledger_turn)
-- error  ARG
-- cost   O(budgets + limiters + waiters woken); at most 16, 16, 1,000
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local log = require('lib.ledger_log')
local measure = require('lib.ledger_measure')
local num = require('lib.num')
local wake = require('lib.ledger_wake')

local MAX_BUDGETS = 16

local function has_any(amounts)
  for _, amount in pairs(amounts) do
    if amount > 0 then
      return true
    end
  end
  return false
end

local function read_use(map)
  local unused, tokens = map.unused and true or false, ledger.amounts(map, 'tokens', ledger.MAX_AMOUNT)
  local costs = ledger.amounts(map, 'costs', num.MAX / 2)
  return {
    kind = unused and 'release' or 'settle',
    state = 'settled',
    unused = unused,
    tokens = tokens,
    measured = measure.of(tokens, costs),
    unpriced = not next(costs) and has_any(tokens),
    note = arg.maybe_text(map, 'note'),
    said = {
      outcome = arg.maybe_text(map, 'outcome') or 'none',
      retry_after_ms = arg.int(map, 'retry_after_ms', 0, ledger.DAY_MS, 0),
      remaining = ledger.amounts(map, 'remaining', 1e12),
    },
  }
end

--- A call that has no record: too old, or never reserved.
local function book(root, now, id, use, names, started)
  local over, record = {}, { state = 'new', at = now, budgets = {}, limiters = {}, busy = {} }
  local specs = budget.specs(root, names)
  for i, name in ipairs(names) do
    local spec = specs[i]
    if spec and budget.is_over(spec, now) then
      over[#over + 1] = { name, spec.window, spec.zone }
    elseif spec then
      record.budgets[#record.budgets + 1] = { id = name, window = spec.start, held = {} }
    end
  end
  if #over > 0 then
    return { 'renew', {}, now, over }
  end
  if started < now - ledger.DAY_MS then
    for _, share in ipairs(record.budgets) do
      log.entry(root, share.id, share.window, 'late_refused', id, {}, budget.new_spend(), use.note)
    end
    return { 'refused', {} }
  end
  use.kind = 'unreserved'
  calls.finish(root, now, id, record, use)
  return { 'booked', {} }
end

local function ledger_settle(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, use = arg.text(map, 'call'), read_use(map)
  local names = ledger.names(map, 'budgets', MAX_BUDGETS)
  local started = arg.int(map, 'started_ms', 0, num.MAX, now)
  local record = ledger.read({ calls.key(root, id) })[1]
  if record and record.state == 'settled' then
    redis.call('PEXPIRE', calls.key(root, id), ledger.DAY_MS)
    calls.leave(root, id, record)
    return cmsgpack.pack({ 'already', {} })
  end
  if not record then
    return cmsgpack.pack(use.unused and { 'already', {} } or book(root, now, id, use, names, started))
  end
  if record.state ~= 'open' then
    use.kind = 'late'
  end
  local freed = calls.finish(root, now, id, record, use)
  return cmsgpack.pack({ use.kind == 'late' and 'late' or 'settled', wake.all(root, now, freed) })
end

return { run = ledger_settle, flags = { 'allow-oom' } }
