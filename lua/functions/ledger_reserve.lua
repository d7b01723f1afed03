--- ledger_reserve: set aside what a call may use, in all its budgets and limiters or in none. The same call again gets
-- the same answer.
-- keys   1  root of the ledger
-- args   1  map {call, budgets: [id], limiters: [[name, JSON as in lib/ledger_conf.lua]], tokens: {category: int},
--           costs: {name: nano}, ttl_ms, sent: bool, ticket?: str (who is promised a slot; default the call),
--           waiter?: {queue: its root, job, since?: ms}, look?: bool (only ask: where it fits, nothing is set aside)}
-- reply  packed [verdict, ...]: "ok", since when; "settled" (this call is over); "missing", budget;
--        "unpriced", budget, cap (on money; it is to be sent, and names neither that cost nor a total);
--        "budget", {budget, cap, limit, used, reserved, asked, on, gone_in?: ms}, generation (total_tokens
--        in thousandths);
--        "throttled" | "open", limiter, ms to wait; "renew", now, [[budget, window, zone]] (see ledger_turn)
-- error  ARG
-- cost   O(budgets + limiters + overdue log n); at most 16 each
local admit = require('lib.ledger_admit')
local arg = require('lib.arg')
local ask = require('lib.ledger_ask')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local look = require('lib.ledger_look')
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

--- Whether the caller was promised a slot that has come; if it is still to come, the answer that says when.
local function promised(call, now)
  local promise = #call.limiters > 0 and call.promise
  if promise and promise[3] - now > MIN_PROMISE_MS then
    return false, { promise[1], promise[2], promise[3] - now }
  end
  return promise and true or false
end

local function decide(root, now, call)
  look.up(root, call)
  if call.record then
    return call.record.state == 'open' and { 'ok', call.record.at } or { 'settled' }
  end
  if call.missing then
    return { 'missing', call.missing }
  end
  local unpriced = admit.unpriced(call)
  if unpriced then
    return unpriced
  end
  local renew = over(call.specs, call.budgets, now)
  if #renew > 0 then
    return { 'renew', now, renew }
  end
  local shares, refusal = admit.ask_budgets(root, now, call)
  if refusal then
    return refusal
  end
  local is_due, early = promised(call, now)
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
