--- ledger_ask: the checked arguments of a reserve, and whether limiters let it through.
local arg = require('lib.arg')
local breaker = require('lib.breaker')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local num = require('lib.num')
local reply = require('lib.reply')

local ask = {}

local MAX_LIMITERS = 16
local MAX_AXES = 8
local MAX_BUDGETS = 16

local function check_axis(axis, tokens)
  arg.text(axis, 'axis')
  arg.int(axis, 'limit', 1, 1e12)
  arg.int(axis, 'period_ms', 1, ledger.DAY_MS)
  arg.int(axis, 'burst', 1, 1e12)
  axis.default = arg.int(axis, 'default', 0, 1e6, 1000)
  axis.weights = ledger.amounts(axis, 'weights', 1e6)
  if math.max(limiter.weigh(axis, tokens), axis.limit, axis.burst) * axis.period_ms >= num.MAX / 4 then
    reply.fail('ARG', 'limiters too large for exact figures')
  end
end

local function check_limiters(list, tokens)
  local seen = {}
  for _, conf in ipairs(list) do
    if type(conf) ~= 'table' or seen[arg.text(conf, 'name')] then
      reply.fail('ARG', 'limiters not a list of maps with different names')
    end
    seen[conf.name] = true
    conf.axes = arg.list(conf, 'axes', MAX_AXES)
    for _, axis in ipairs(conf.axes) do
      check_axis(axis, tokens)
    end
    conf.concurrency = conf.concurrency and arg.int(conf, 'concurrency', 1, 1e6)
    for i = 1, 3 do
      arg.int(conf.breaker or { 1, 1, 1 }, i, 1, 1e9)
    end
  end
  return list
end

local function check_waiter(waiter)
  if waiter == nil then
    return nil
  elseif type(waiter) ~= 'table' then
    reply.fail('ARG', 'waiter not a map')
  end
  arg.text(waiter, 'queue')
  arg.text(waiter, 'job')
  waiter.since = waiter.since and arg.int(waiter, 'since', 0, num.MAX)
  return waiter
end

--- Read the arguments; fails with ARG before anything is written.
function ask.read(map)
  local tokens = ledger.amounts(map, 'tokens', ledger.MAX_AMOUNT)
  return {
    call = arg.text(map, 'call'),
    budgets = ledger.names(map, 'budgets', MAX_BUDGETS),
    limiters = check_limiters(arg.list(map, 'limiters', MAX_LIMITERS), tokens),
    tokens = tokens,
    costs = ledger.amounts(map, 'costs', num.MAX / 2),
    ttl_ms = arg.int(map, 'ttl_ms', 1, ledger.DAY_MS),
    sent = map.sent and true or false,
    ticket = arg.maybe_text(map, 'ticket') or map.call,
    waiter = check_waiter(map.waiter),
  }
end

local function is_busy(root, now, conf, state)
  return conf.concurrency
    and redis.call('ZCOUNT', ledger.key(root, 'slots', conf.name), '(' .. num.text(now), '+inf')
      >= limiter.effective(state, conf.concurrency)
end

--- What stops a caller at one limiter: kind and the slot he is given, or nil.
local function stop(root, now, conf, state, amounts, is_due)
  local open = conf.breaker and breaker.wait(state.breaker, now) or 0
  if open > 0 then
    return 'open', limiter.rate_slot(state, conf, amounts, now, open)
  end
  local wait = limiter.rate_wait(state, conf, amounts, now, is_due)
  if wait > 0 then
    return 'throttled', limiter.rate_slot(state, conf, amounts, now, wait, is_due)
  end
  if is_busy(root, now, conf, state) then
    return 'throttled', limiter.busy_slot(state, conf, now)
  end
end

--- Ask all limiters. Answers per limiter {conf, key, state, amounts}, and what stops the caller for longest:
-- {kind, at, its place in the list}, or nil.
function ask.limiters(root, now, call, is_due)
  local keys, lines, stopped = {}, {}, nil
  for i, conf in ipairs(call.limiters) do
    keys[i] = ledger.key(root, 'limiter', conf.name)
  end
  local states = ledger.read(keys)
  for i, conf in ipairs(call.limiters) do
    local state = states[i] or limiter.new()
    local amounts = limiter.amounts(conf, call.tokens)
    limiter.advance(state, conf, now)
    lines[i] = { conf = conf, key = keys[i], state = state, amounts = amounts }
    local kind, at = stop(root, now, conf, state, amounts, is_due)
    if kind and not (stopped and stopped[2] >= at) then
      stopped = { kind, at, i }
    end
  end
  return lines, stopped
end

return ask
