--- breaker: stops calls to what keeps failing. It opens when enough of the last ten seconds' calls failed; after a
-- time one call with a lease goes first, and its outcome decides for all. A state is {until_, openings, probe,
-- probe_until, buckets = [[second, ok, failed]...]}; `until_` 0: closed.
local breaker = {}

local SECONDS = 10
local PROBE_MS = 60000
local LOOK_MS = 1000 -- while a probe is out: its outcome is mostly known long before its lease ends
local MAX_OPENINGS = 5 -- the time doubles with each opening in a row, up to 16 times

function breaker.new()
  return { until_ = 0, openings = 0, probe = '', probe_until = 0, buckets = {} }
end

--- Milliseconds until a call may pass: 0 now.
function breaker.wait(state, now)
  if state.until_ == 0 then
    return 0
  end
  if state.until_ > now then
    return state.until_ - now
  end
  return math.max(0, math.min(LOOK_MS, state.probe_until - now))
end

--- A call passes: in a breaker that was open it is the probe.
function breaker.pass(state, call, now)
  if state.until_ > 0 then
    state.probe, state.probe_until = call, now + PROBE_MS
  end
end

local function open(state, conf, now)
  state.openings = math.min(state.openings + 1, MAX_OPENINGS)
  state.until_ = math.max(state.until_, now + conf[3] * 2 ^ (state.openings - 1))
  state.probe, state.probe_until, state.buckets = '', 0, {}
end

--- The bucket of this second; older ones than ten seconds are dropped.
local function bucket(state, now)
  local second, kept = math.floor(now / 1000), {}
  for _, one in ipairs(state.buckets) do
    if one[1] > second - SECONDS and one[1] <= second then
      kept[#kept + 1] = one
    end
  end
  if #kept == 0 or kept[#kept][1] ~= second then
    kept[#kept + 1] = { second, 0, 0 }
  end
  state.buckets = kept
  return kept[#kept]
end

local function sums(state)
  local ok, failed = 0, 0
  for _, one in ipairs(state.buckets) do
    ok, failed = ok + one[2], failed + one[3]
  end
  return ok, failed
end

local PLACES = { ok = 2, error = 3 } -- in a bucket

local function judge_probe(state, conf, outcome, now)
  state.probe, state.probe_until = '', 0
  if outcome == 'ok' then
    state.until_, state.openings, state.buckets = 0, 0, {}
  elseif outcome == 'error' then
    open(state, conf, now)
  end
end

--- A call has ended: "ok", "error", or anything else, which says nothing about the other side.
-- `conf` is [calls needed to judge, share of failures in percent, open for ms].
function breaker.note(state, conf, call, outcome, now)
  if state.probe == call then
    return judge_probe(state, conf, outcome, now)
  end
  -- Calls that began before it opened neither close it nor keep it open.
  local at = PLACES[outcome]
  if state.until_ > 0 or not at then
    return
  end
  local current = bucket(state, now)
  current[at] = current[at] + 1
  local ok, failed = sums(state)
  if failed > 0 and ok + failed >= conf[1] and failed * 100 >= (ok + failed) * conf[2] then
    open(state, conf, now)
  end
end

return breaker
