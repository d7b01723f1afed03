--- ledger_reserve: set aside what a call may use, in all its budgets and limiters or in none. The same call again gets
-- the same answer.
-- keys   1  root of the ledger
-- args   1  map {call, budgets: [id], limiters: [[name, JSON as in lib/ledger_conf.lua]], tokens: {category: int},
--           costs: {name: nano}, ttl_ms, sent: bool, ticket?: str (who is promised a slot; default the call),
--           waiter?: {queue: its root, job, since?: ms}}
-- reply  packed [verdict, ...]: "ok"; "settled" (this call is over); "missing", budget;
--        "budget", {budget, cap, limit, used, reserved, asked, on}, generation (total_tokens in thousandths);
--        "throttled" | "open", limiter, ms to wait; "renew", now, [[budget, window, zone]] (see ledger_turn)
-- error  ARG
-- cost   O(budgets + limiters + overdue log n); at most 16 each
local admit = require('lib.ledger_admit')
local arg = require('lib.arg')
local ask = require('lib.ledger_ask')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local num = require('lib.num')
local wake = require('lib.ledger_wake')

local MAX_LAPSES = 16
local MIN_PROMISE_MS = 5

--- The budgets whose window is over, as the reply wants them.
local function over(specs, ids, now)
  local found = {}
  for i, id in ipairs(ids) do
    if budget.is_over(specs[i], now) then
      found[#found + 1] = { id, specs[i].window, specs[i].zone }
    end
  end
  return found
end

--- The slot this caller was promised, if it is still to come, and whether one was and has come.
local function promised(root, now, call)
  if #call.limiters == 0 then
    return nil, false
  end
  local ticket = ledger.read({ ledger.key(root, 'ticket', call.ticket) })[1]
  if ticket and ticket[3] - now > MIN_PROMISE_MS then
    return { ticket[1], ticket[2], ticket[3] - now }, false
  end
  return nil, ticket ~= nil
end

local function decide(root, now, call)
  local record = ledger.read({ calls.key(root, call.call) })[1]
  if record then
    return { record.state == 'open' and 'ok' or 'settled' }
  end
  local specs, missing = budget.specs(root, call.budgets)
  if missing then
    return { 'missing', missing }
  end
  local renew = over(specs, call.budgets, now)
  if #renew > 0 then
    return { 'renew', now, renew }
  end
  local shares, refusal = admit.ask_budgets(root, now, call, specs)
  if refusal then
    return refusal
  end
  local early, is_due = promised(root, now, call)
  if early then
    return early
  end
  local stopped = ask.limiters(root, now, call, is_due)
  if stopped then
    return admit.turn_away(root, now, call, stopped)
  end
  return admit.let_in(root, now, call, shares, is_due)
end

local function ledger_reserve(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local call = ask.read(map)
  local freed = calls.lapse_overdue(root, now, MAX_LAPSES)
  wake.all(root, now, freed)
  return cmsgpack.pack(decide(root, now, call))
end

return { run = ledger_reserve, flags = { 'allow-oom' } }
