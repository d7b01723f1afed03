--- ledger_admit: what a reserve writes: a refusal, a promised slot, or the reservation in all budgets and limiters.
local breaker = require('lib.breaker')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local measure = require('lib.ledger_measure')
local waiters = require('lib.ledger_waiters')

local admit = {}

local TICKET_MS = 60000

--- The verdict on a call that is about to be sent and does not say what it costs, where a budget caps money; or nil.
function admit.unpriced(call)
  for i, id in ipairs(call.sent and call.budgets or {}) do
    local cap = measure.unpriced(call.specs[i].caps, call.use)
    if cap then
      return { 'unpriced', id, cap }
    end
  end
end

--- Ask all budgets; answers their shares, or the verdict of the first that refuses.
function admit.ask_budgets(root, now, call)
  local windows, shares, specs = {}, {}, call.specs
  for i in ipairs(call.budgets) do
    windows[i] = specs[i].start
  end
  local spends, keys = budget.spends(root, call.budgets, windows)
  for i, id in ipairs(call.budgets) do
    local amounts = measure.under(specs[i], spends[i], call.use)
    local refusal = budget.refusal(specs[i], spends[i], amounts)
    if refusal then
      refusal.budget, refusal.on = id, specs[i].on
      refusal.gone_in = specs[i].gone_at > 0 and math.max(1, specs[i].gone_at - now) or nil
      if call.waiter and specs[i].on == 'pause' then
        waiters.add(root, now, id, call.waiter, amounts, budget.life(specs[i], specs[i].start, now))
      end
      return nil, { 'budget', refusal, spends[i].generation }
    end
    shares[i] = { id = id, spec = specs[i], spend = spends[i], key = keys[i], amounts = amounts }
  end
  return shares
end

--- Turn a caller away until his slot: `stopped` is {kind, at, place in the list}.
function admit.turn_away(root, now, call, stopped)
  local line, kind, at = call.limiters[stopped[3]], stopped[1], stopped[2]
  local tx, name = ledger.begin(root, now), line.name
  ledger.put(tx, line.key, line.state, limiter.life(line.state, line.conf, now, call.ttl_ms), true)
  ledger.put(tx, ledger.key(root, 'ticket', call.ticket), { kind, name, at }, at - now + TICKET_MS)
  ledger.commit(tx)
  return { kind, name, at - now }
end

function admit.let_in(root, now, call, shares, had_ticket)
  if call.look then
    return { 'ok', now }
  end
  local tx = ledger.begin(root, now)
  local record = { state = 'open', at = now, deadline = now + call.ttl_ms, sent = call.sent, budgets = {},
    limiters = {}, busy = {} }
  -- The deadline leads back to whatever a break leaves behind: it comes first, and goes last.
  redis.call('ZADD', ledger.key(root, 'deadlines'), record.deadline, call.call)
  redis.call('ZADD', ledger.key(root, 'calls'), 0, call.call)
  for i, share in ipairs(shares) do
    record.budgets[i] = { id = share.id, window = share.spec.start, held = share.amounts }
    budget.add(share.spend.held, share.amounts, 1)
    share.spend.version = share.spend.version + 1
    ledger.put(tx, share.key, share.spend, budget.life(share.spec, share.spec.start, now), true)
  end
  for i, line in ipairs(call.limiters) do
    local conf, state = line.conf, line.state
    record.limiters[i] = { name = line.name, amounts = line.amounts }
    limiter.charge(state, conf, line.amounts, 1)
    breaker.pass(state.breaker, call.call, now)
    if conf.concurrency then
      local slots = ledger.key(root, 'slots', line.name)
      record.busy[#record.busy + 1] = line.name
      state.turned = now
      redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
      redis.call('ZADD', slots, record.deadline, call.call)
      redis.call('PEXPIRE', slots, ledger.DAY_MS)
    end
    ledger.put(tx, line.key, state, limiter.life(state, conf, now, call.ttl_ms), true)
  end
  ledger.put(tx, calls.key(root, call.call), record)
  ledger.commit(tx)
  if had_ticket then
    redis.call('UNLINK', ledger.key(root, 'ticket', call.ticket))
  end
  if call.waiter then
    waiters.leave(root, call.budgets, call.waiter)
  end
  return { 'ok', now }
end

return admit
