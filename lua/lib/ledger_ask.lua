--- ledger_ask: the checked arguments of a reserve, and whether limiters let it through.
local arg = require('lib.arg')
local breaker = require('lib.breaker')
local conf = require('lib.ledger_conf')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local measure = require('lib.ledger_measure')
local num = require('lib.num')
local reply = require('lib.reply')

local ask = {}

local MAX_LIMITERS = 16
local MAX_BUDGETS = 16

--- Per limiter {name, text, conf, amounts}, from pairs [name, its configuration as JSON].
local function check_limiters(list, tokens)
  local seen, lines = {}, {}
  for i, pair in ipairs(list) do
    if type(pair) ~= 'table' or type(pair[1]) ~= 'string' or type(pair[2]) ~= 'string' or seen[pair[1]] then
      reply.fail('ARG', 'limiters not a list of different names with their configurations')
    end
    seen[pair[1]] = true
    local found = conf.of(pair[2])
    local amounts = limiter.amounts(found, tokens)
    for _, axis in ipairs(found.axes) do
      conf.check_size(amounts[axis.axis], axis)
    end
    lines[i] = { name = pair[1], text = pair[2], conf = found, amounts = amounts }
  end
  return lines
end

local function check_waiter(waiter)
  if waiter == nil then
    return nil
  elseif type(waiter) ~= 'table' then
    reply.fail('ARG', 'waiter not a map')
  end
  if string.find(arg.text(waiter, 'queue') .. arg.text(waiter, 'job'), '\n', 1, true) then
    reply.fail('ARG', 'waiter not of one line')
  end
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
    use = measure.of(tokens, ledger.amounts(map, 'costs', num.MAX / 2)),
    ttl_ms = arg.int(map, 'ttl_ms', 1, ledger.DAY_MS),
    sent = map.sent and true or false,
    look = map.look and true or false,
    ticket = arg.maybe_text(map, 'ticket') or map.call,
    waiter = check_waiter(map.waiter),
  }
end

local function is_busy(root, now, line)
  return line.conf.concurrency
    and redis.call('ZCOUNT', ledger.key(root, 'slots', line.name), '(' .. num.text(now), '+inf')
      >= limiter.effective(line.state, line.conf.concurrency)
end

--- What stops a caller at one limiter: kind and the slot he is given, or nil.
local function stop(root, now, line, is_due, look)
  local settings, state, amounts = line.conf, line.state, line.amounts
  local open = settings.breaker and breaker.wait(state.breaker, now) or 0
  if open > 0 then
    return 'open', limiter.rate_slot(state, settings, amounts, now, open)
  end
  local wait = limiter.rate_wait(state, settings, amounts, now, is_due)
  if wait > 0 then
    return 'throttled', limiter.rate_slot(state, settings, amounts, now, wait, is_due)
  end
  if not look and is_busy(root, now, line) then -- who only looks has no need of a place yet
    return 'throttled', limiter.busy_slot(state, settings, now)
  end
end

--- Ask all limiters of a call. Answers what stops the caller for longest: {kind, at, its place in the list}, or nil.
function ask.limiters(root, now, call, is_due)
  local stopped
  for i, line in ipairs(call.limiters) do
    limiter.advance(line.state, line.conf, now)
    local kind, at = stop(root, now, line, is_due, call.look)
    if kind and not (stopped and stopped[2] >= at) then
      stopped = { kind, at, i }
    end
  end
  return stopped
end

return ask
