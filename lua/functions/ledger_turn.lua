--- ledger_turn: begin the next window of a budget. Only clients know calendars; the first one to tell is right.
-- keys   1  root of the ledger
-- args   1  map {id, start: ms, stop: ms}
-- reply  packed [verdict, outbox entries as in ledger_settle]: "turned", "kept" (it is in this window, or a later
--        one), "early" (the window doesn't contain the server's now), "missing"
-- error  ARG
-- cost   O(waiters woken); at most 1,000
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local log = require('lib.ledger_log')
local num = require('lib.num')
local wake = require('lib.ledger_wake')

local function turn(root, now, id, spec, start, stop)
  local spends, keys = budget.spends(root, { id, id }, { spec.start, start })
  local old, new = spends[1], spends[2]
  new.generation = old.generation + 1
  log.entry(root, id, start, 'window', '', {}, new)
  local tx = ledger.begin(root, now)
  local before = spec.start
  spec.start, spec.stop = start, stop
  ledger.put(tx, ledger.key(root, 'budget', id), spec, budget.life(spec, start, now))
  ledger.put(tx, keys[1], old, budget.life(spec, before, now))
  ledger.put(tx, keys[2], new, budget.life(spec, start, now))
  ledger.commit(tx)
  redis.call('ZADD', ledger.key(root, 'windows'), stop, id)
  return wake.one(root, now, id, spec, new)
end

local function ledger_turn(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, start, stop = arg.text(map, 'id'), arg.int(map, 'start', 0, num.MAX), arg.int(map, 'stop', 0, num.MAX)
  local spec = ledger.read({ ledger.key(root, 'budget', id) })[1]
  if not spec then
    return cmsgpack.pack({ 'missing', {} })
  elseif start <= spec.start then
    return cmsgpack.pack({ 'kept', {} })
  elseif now < start or now >= stop then
    return cmsgpack.pack({ 'early', {} })
  end
  return cmsgpack.pack({ 'turned', turn(root, now, id, spec, start, stop) })
end

return { run = ledger_turn, flags = { 'allow-oom' } }
