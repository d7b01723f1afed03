--- ledger_extend: raise an open reservation to new totals (the next slice of a stream). Repeats and lower totals
-- change nothing. Budgets may refuse; limiters are charged, for the stream is running already.
-- keys   1  root of the ledger
-- args   1  map {call, tokens: {category: int}, costs: {name: nano}, ttl_ms?: from now}: totals, not additions
-- reply  packed [verdict, ...]: "ok"; "over" (the call is not open); "budget" and "unpriced" as in ledger_reserve
-- error  ARG
-- cost   O(budgets + limiters)
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local conf = require('lib.ledger_conf')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local measure = require('lib.ledger_measure')
local num = require('lib.num')

--- What is to be added to reach the totals: per name, never less than nothing.
local function missing(totals, held)
  local more = {}
  for name, total in pairs(totals) do
    more[name] = math.max(0, total - (held[name] or 0))
  end
  return more
end

--- Stage the budgets' part; answers a refusal instead if one of them has no room.
local function extend_budgets(tx, record, use)
  local specs, spends, keys = budget.of_shares(tx.root, record.budgets)
  for i, share in ipairs(record.budgets) do
    local spec, spend = specs[i], spends[i]
    if spec then
      local blind = record.sent and next(use.tokens) and measure.unpriced(spec.caps, use)
      if blind then
        return { 'unpriced', share.id, blind }
      end
      local more = missing(measure.under(spec, spend, use), share.held)
      local refusal = budget.refusal(spec, spend, more)
      if refusal then
        refusal.budget, refusal.on = share.id, spec.on
        return { 'budget', refusal, spend.generation }
      end
      budget.add(share.held, more, 1)
      budget.add(spend.held, more, 1)
      spend.version = spend.version + 1
      ledger.put(tx, keys[i], spend, budget.life(spec, share.window, tx.now), true)
    end
  end
end

local function extend_limiters(tx, record, tokens)
  local keys = {}
  for i, share in ipairs(record.limiters) do
    keys[i] = ledger.key(tx.root, 'limiter', share.name)
  end
  local states = ledger.read(keys)
  for i, share in ipairs(record.limiters) do
    local state = states[i]
    if state then
      local settings = conf.of(state.conf)
      limiter.advance(state, settings, tx.now)
      local more = missing(limiter.amounts(settings, tokens), share.amounts)
      limiter.charge(state, settings, more, 1)
      budget.add(share.amounts, more, 1)
      ledger.put(tx, keys[i], state, limiter.life(state, settings, tx.now, record.deadline - tx.now), true)
    end
  end
end

local function ledger_extend(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id = arg.text(map, 'call')
  local tokens = ledger.amounts(map, 'tokens', ledger.MAX_AMOUNT)
  local costs = ledger.amounts(map, 'costs', num.MAX / 2)
  local ttl = arg.int(map, 'ttl_ms', 0, ledger.DAY_MS, 0)
  local record = ledger.read({ calls.key(root, id) })[1]
  if not record or record.state ~= 'open' then
    return cmsgpack.pack({ 'over' })
  end
  local tx = ledger.begin(root, now)
  local refusal = extend_budgets(tx, record, measure.of(tokens, costs))
  if refusal then
    return cmsgpack.pack(refusal)
  end
  record.deadline = math.max(record.deadline, now + ttl)
  extend_limiters(tx, record, tokens)
  ledger.put(tx, calls.key(root, id), record)
  ledger.commit(tx)
  redis.call('ZADD', ledger.key(root, 'deadlines'), record.deadline, id)
  for _, name in ipairs(record.busy) do
    redis.call('ZADD', ledger.key(root, 'slots', name), 'XX', record.deadline, id)
  end
  return cmsgpack.pack({ 'ok' })
end

return { run = ledger_extend, flags = { 'allow-oom' } }
