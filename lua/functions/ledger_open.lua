--- ledger_open: make a budget, or change one that is there. Raised caps wake who waits.
-- keys   1  root of the ledger
-- args   1  map {id, caps: {"total_tokens" | "tokens.CATEGORY" | "cost.NAME": int}, weights: {category: thousandths},
--           on: "fail" | "pause", unit: str, window: "none" | "day" | "month", zone: str, start: ms, stop: ms
--           (0: the window never ends), update: bool}
-- reply  packed [verdict, outbox entries as in ledger_settle]: "made", "updated", "kept" (it was there, unchanged),
--        "missing" (nothing there to update)
-- error  ARG
-- cost   O(caps + waiters woken); at most 1,000
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local log = require('lib.ledger_log')
local num = require('lib.num')
local reply = require('lib.reply')
local wake = require('lib.ledger_wake')

local MAX_WEIGHT = 1e6
local WINDOWS = { none = true, day = true, month = true }
local MODES = { fail = true, pause = true }

local function read_spec(map)
  local spec = {
    caps = ledger.amounts(map, 'caps', num.MAX),
    weights = ledger.amounts(map, 'weights', MAX_WEIGHT),
    on = arg.text(map, 'on'),
    unit = arg.text(map, 'unit'),
    window = arg.text(map, 'window'),
    zone = arg.text(map, 'zone'),
    start = arg.int(map, 'start', 0, num.MAX),
    stop = arg.int(map, 'stop', 0, num.MAX),
    gone_at = 0,
  }
  if not WINDOWS[spec.window] or not MODES[spec.on] then
    reply.fail('ARG', 'window or on not one of the known ones')
  end
  return spec
end

--- An update keeps the window unless the kind of window changes.
local function merge(spec, old)
  if old.window == spec.window and old.zone == spec.zone then
    spec.start, spec.stop = old.start, old.stop
  end
  spec.gone_at = old.gone_at
end

--- The sums of the window that holds now; its generation goes on from the one before.
local function current_spend(root, id, spec, old)
  local spends = budget.spends(root, { id, id }, { spec.start, old.start })
  spends[1].generation = math.max(spends[1].generation, spends[2].generation)
  spends[1].version = spends[1].version + 1
  return spends[1]
end

local function store(root, now, id, spec, spend, is_new)
  log.entry(root, id, spec.start, is_new and 'open' or 'update', '', {}, spend)
  log.alert(root, id, spec, spend, true)
  local tx = ledger.begin(root, now)
  ledger.put(tx, ledger.key(root, 'budget', id), spec, budget.life(spec, spec.start, now))
  ledger.put(tx, budget.spend_key(root, id, spec.start), spend, budget.life(spec, spec.start, now))
  ledger.commit(tx)
  redis.call('ZADD', ledger.key(root, 'budgets'), is_new and 'NX' or 'XX', now, id)
  if spec.stop > 0 then
    redis.call('ZADD', ledger.key(root, 'windows'), spec.stop, id)
  else
    redis.call('ZREM', ledger.key(root, 'windows'), id)
  end
end

local function ledger_open(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, spec = arg.text(map, 'id'), read_spec(map)
  local old = ledger.read({ ledger.key(root, 'budget', id) })[1]
  local is_there = old ~= nil
  if is_there ~= (map.update == true) then
    return cmsgpack.pack({ is_there and 'kept' or 'missing', {} })
  end
  merge(spec, old or spec)
  local spend = current_spend(root, id, spec, old or spec)
  store(root, now, id, spec, spend, not is_there)
  return cmsgpack.pack({ is_there and 'updated' or 'made', wake.one(root, now, id, spec, spend) })
end

return { run = ledger_open, flags = {} }
