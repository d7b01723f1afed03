--- ledger_limiter: the state of one named limiter. `conf` is what callers configured: {name, axes = [{axis,
-- limit, period_ms, burst, count?, side?, default, weights}], concurrency?, adaptive, breaker?}; the latest is kept.
-- Turned-away callers get slots: `cursor` is the last one promised because of a rate, `queue` because all were busy;
-- `hold`: how long calls take (0: none has ended), `turned`: when a place was last taken or came free.
local breaker = require('lib.breaker')
local gcra = require('lib.gcra')

local limiter = {}

local FULL = 1000 -- the cap in thousandths of the configured limits
local LEAST_MS = 20 -- between slots without a rate; for a call whose length is not known
local REMEMBER_MS, LINGER_MS = 600000, 60000

function limiter.new()
  return { axes = {}, cursor = 0, queue = 0, cap = FULL, cut = 0, grown = 0, blocked = 0, hold = 0, turned = 0,
    ratio = FULL, breaker = breaker.new() }
end

--- A configured limit as far as the cap lets it.
function limiter.effective(state, limit)
  return math.max(1, math.floor(limit * state.cap / FULL))
end

local function is_input(category)
  return string.find(category, '^cache_write') or string.find('_' .. category, '_input$')
end

--- What a use comes to on an axis: `side` counts only one side of the tokens.
function limiter.weigh(axis, tokens)
  if axis.count then
    return 1
  end
  local sum = 0
  for category, count in pairs(tokens) do
    if not axis.side or (axis.side == 'input') == (is_input(category) ~= nil) then
      sum = sum + count * (axis.weights[category] or axis.default)
    end
  end
  return math.ceil(sum / 1000)
end

function limiter.amounts(conf, tokens)
  local amounts = {}
  for _, axis in ipairs(conf.axes) do
    amounts[axis.axis] = limiter.weigh(axis, tokens)
  end
  return amounts
end

--- Let the debts leak up to now.
function limiter.advance(state, conf, now)
  for _, axis in ipairs(conf.axes) do
    local found = state.axes[axis.axis] or { 0, now }
    found[1] = gcra.leak(found[1], now - found[2], limiter.effective(state, axis.limit))
    -- A clock that went back far must not hold callers for as long.
    found[2] = found[2] - now > axis.period_ms and now or math.max(found[2], now)
    state.axes[axis.axis] = found
  end
end

--- Add to the debts (`sign` 1) or take back (-1); never below none.
function limiter.charge(state, conf, amounts, sign)
  for _, axis in ipairs(conf.axes) do
    local found = state.axes[axis.axis]
    if found then
      found[1] = math.max(0, found[1] + sign * (amounts[axis.axis] or 0) * axis.period_ms)
    end
  end
end

--- Milliseconds until the rates have room: 0 now. Callers who were promised nothing queue behind those who were.
function limiter.rate_wait(state, conf, amounts, now, is_due)
  local wait = math.max(0, state.blocked - now)
  for _, axis in ipairs(conf.axes) do
    local amount = amounts[axis.axis]
    if amount > 0 then
      local burst, limit = limiter.effective(state, axis.burst), limiter.effective(state, axis.limit)
      wait = math.max(wait, gcra.wait(state.axes[axis.axis][1], amount, limit, axis.period_ms, burst))
    end
  end
  return wait == 0 and not is_due and state.cursor > now and 1 or wait
end

--- The slot of a caller who can't pass before now + wait: after all promised before, by what he will take.
-- Slots are spaced by the configured limits: at a lowered cap they would outlast it, and hold up all behind them.
function limiter.rate_slot(state, conf, amounts, now, wait, is_due)
  local spacing = #conf.axes == 0 and LEAST_MS or 1
  for _, axis in ipairs(conf.axes) do
    -- Estimates are higher than what is used, and the difference comes back: `ratio` is what they are worth.
    local worth = axis.count and FULL or state.ratio
    local taken = amounts[axis.axis] * axis.period_ms / axis.limit
    spacing = math.max(spacing, math.ceil(taken * worth / FULL))
  end
  if is_due and wait <= spacing then
    return now + wait -- he came in time, another a little late: his place isn't lost for that
  end
  state.cursor = math.max(now + wait, state.cursor + spacing)
  return state.cursor
end

--- The slot of a caller who met all places taken: as places come free. While none does, calls evidently take longer
-- than was known: a guess that is too short costs a few looks for each doubling of the time.
function limiter.busy_slot(state, conf, now)
  local hold = math.max(LEAST_MS, state.hold, now - state.turned)
  state.queue = math.max(now, state.queue) + math.ceil(hold / conf.concurrency)
  return state.queue
end

--- How long the state says something that a new one would not.
function limiter.life(state, conf, now, ttl)
  local life = math.max(ttl or 0, state.blocked - now, state.cursor - now, state.queue - now,
    state.breaker.until_ - now)
  for _, axis in ipairs(conf.axes) do
    life = math.max(life, state.axes[axis.axis][1] / limiter.effective(state, axis.limit))
  end
  local has_learned = state.cap < FULL or state.breaker.until_ > 0
  return life + (has_learned and REMEMBER_MS or LINGER_MS)
end

return limiter
