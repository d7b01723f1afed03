--- ledger_feedback: what the end of a call tells its limiters: what it really took, and how the other side fares.
-- Multiplicative decrease once per round trip, as TCP does; increase with time and success, by a share of the cap.
local breaker = require('lib.breaker')
local configured = require('lib.ledger_conf')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')

local feedback = {}

local FULL = 1000
local LOWEST = 50
local CUT = 700
local MAX_GROWTH = 0.25
local GROWTH_MS = 10000 -- a tenth of the cap a second: from a tenth of the limits to nine tenths in 22 s
local SMOOTH = 8
local MAX_HOLD_MS = 600000

--- The other side refused for its own rates. Calls admitted before the last cut say nothing new.
local function cut(state, admitted_at, retry_after, now)
  if admitted_at > state.cut then
    state.cap = math.max(LOWEST, math.floor(state.cap * CUT / FULL))
    state.cut, state.grown = now, now
  end
  state.blocked = math.max(state.blocked, now + retry_after)
end

local function grow(state, now)
  local share = math.min(MAX_GROWTH, math.max(0, now - state.grown) / GROWTH_MS)
  state.cap = math.min(FULL, state.cap * (1 + share))
  state.grown = now
end

--- Others use the same account: what it says is left bounds what is left here. It never raises it.
local function lower(state, conf, remaining)
  for _, axis in ipairs(conf.axes) do
    local left = remaining[axis.axis]
    if left then
      local debt = (limiter.effective(state, axis.burst) - left) * axis.period_ms
      state.axes[axis.axis][1] = math.max(state.axes[axis.axis][1], debt)
    end
  end
end

local function smooth(old, new)
  return math.floor(((SMOOTH - 1) * old + new) / SMOOTH)
end

--- Replace what was reserved by what was used.
local function correct(state, conf, record, reserved, use, now)
  if use.unused then
    return limiter.charge(state, conf, reserved, -1)
  end
  local actual = limiter.amounts(conf, use.tokens)
  limiter.charge(state, conf, actual, 1)
  limiter.charge(state, conf, reserved, -1)
  local held = math.min(MAX_HOLD_MS, math.max(0, now - record.at))
  state.hold = state.hold == 0 and held or smooth(state.hold, held)
  for _, axis in ipairs(conf.axes) do
    local asked = reserved[axis.axis] or 0
    if not axis.count and asked > 0 then
      local share = math.min(FULL, math.ceil(actual[axis.axis] * FULL / asked))
      state.ratio = math.max(LOWEST, smooth(state.ratio, share))
    end
  end
end

local function hear(state, conf, call, record, said, now)
  if conf.adaptive then
    if said.outcome == 'limited' then
      cut(state, record.at, math.min(said.retry_after_ms, conf.max_pause_ms), now)
    elseif said.outcome == 'ok' and state.cap < FULL then
      grow(state, now)
    end
    lower(state, conf, said.remaining)
  end
  if conf.breaker then
    breaker.note(state.breaker, conf.breaker, call, said.outcome, now)
  end
end

--- Stage what the end of a call means for its limiters. `use` is {tokens, unused?, unknown?, said = {outcome,
-- retry_after_ms, remaining}}; `unknown`: nobody knows what it took, so what was reserved stays taken.
function feedback.settle(tx, call, record, use)
  local keys = {}
  for i, share in ipairs(record.limiters) do
    keys[i] = ledger.key(tx.root, 'limiter', share.name)
  end
  local states = ledger.read(keys)
  for i, share in ipairs(record.limiters) do
    local state = states[i]
    if state then
      local conf = configured.of(state.conf)
      limiter.advance(state, conf, tx.now)
      state.turned = tx.now
      if record.state == 'open' and not use.unknown then
        correct(state, conf, record, share.amounts, use, tx.now)
      end
      hear(state, conf, call, record, use.said, tx.now)
      ledger.put(tx, keys[i], state, limiter.life(state, conf, tx.now, 0), true)
    end
  end
end

return feedback
