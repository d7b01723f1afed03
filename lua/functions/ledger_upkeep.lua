--- ledger_upkeep: a bounded round of what nobody waits for: overdue calls, waiters that still fit, and what is to be
-- relayed. Anyone may call it, once a second or when told that there is more.
-- keys   1  root of the ledger
-- args   1  map {ack?: [outbox entry ids that were relayed], failed?: [[entry id, why]] (those that could not be),
--           gone?: [[budget, queue root and job by line]] (woken ones that have ended)}
-- reply  packed [now, 1 if there is more, windows to turn [[budget, window, zone]], outbox entries as in
--        ledger_settle: those nobody has relayed for half a second, those that failed before and are due again, then
--        those of this round]
-- error  ARG
-- cost   at most 64 calls, 4 budgets with 1,000 waiters each, 80 entries
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local num = require('lib.num')
local relay = require('lib.relay')
local reply = require('lib.reply')
local waiters = require('lib.ledger_waiters')
local wake = require('lib.ledger_wake')

local MAX = 64
local MAX_ACKS = 1000
local MAX_BUDGETS = 4
local MAX_RETRIES = 16
local RELAY_MS = 500

local function due_windows(root, now)
  local ids = redis.call('ZRANGEBYSCORE', ledger.key(root, 'windows'), '-inf', now, 'LIMIT', 0, MAX)
  local keys, found = {}, {}
  for i, id in ipairs(ids) do
    keys[i] = ledger.key(root, 'budget', id)
  end
  local specs = ledger.read(keys)
  for i, id in ipairs(ids) do
    if specs[i] then
      found[#found + 1] = { id, specs[i].window, specs[i].zone }
    else
      redis.call('ZREM', ledger.key(root, 'windows'), id)
    end
  end
  return found
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
end

--- Give the room of woken jobs that have ended to those behind them; adds the entries written to `sent`.
local function pass_over(root, now, gone, sent)
  local seen = {}
  for _, pair in ipairs(gone) do
    waiters.forget(root, pair[1], pair[2])
    seen[pair[1]] = true
  end
  for id in pairs(seen) do
    local spec = budget.specs(root, { id })[1]
    if spec then
      append(sent, wake.one(root, now, id, spec, budget.spends(root, { id }, { spec.start })[1]))
    end
  end
end

--- Look again at the budgets with waiters that were looked at the longest ago; adds the entries written to `sent`.
local function wake_parked(root, now, sent)
  local parked = ledger.key(root, 'parked')
  for _, id in ipairs(redis.call('ZRANGE', parked, 0, MAX_BUDGETS - 1)) do
    local spec = budget.specs(root, { id })[1]
    if not spec or redis.call('ZCARD', ledger.key(root, 'waiters', id)) == 0 then
      redis.call('ZREM', parked, id)
    else
      redis.call('ZADD', parked, now, id)
      append(sent, wake.one(root, now, id, spec, budget.spends(root, { id }, { spec.start })[1]))
    end
  end
end

local function outbox(root, now)
  local until_ = num.text(math.max(0, now - RELAY_MS))
  local found = {}
  for i, entry in ipairs(relay.read(root, now, MAX, MAX_RETRIES, until_)) do
    local fields = entry[2]
    found[i] = { entry[1], fields[2] or '', fields[4] or '', num.of(fields[6], 0), fields[8] or '' }
  end
  return found
end

local function read_gone(map)
  local gone = arg.list(map, 'gone', MAX_ACKS)
  for _, pair in ipairs(gone) do
    if type(pair) ~= 'table' or type(pair[1]) ~= 'string' or type(pair[2]) ~= 'string' then
      reply.fail('ARG', 'gone not a list of pairs of texts')
    end
  end
  return gone
end

local function ledger_upkeep(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local acks, gone, failed = arg.texts(map, 'ack', MAX_ACKS), read_gone(map), relay.failed(map, MAX_ACKS)
  if #acks > 0 then
    relay.forget(root, acks)
  end
  relay.defer(root, now, failed)
  local entries = outbox(root, now)
  pass_over(root, now, gone, entries)
  local freed, lapsed = calls.lapse_overdue(root, now, MAX)
  append(entries, wake.all(root, now, freed))
  wake_parked(root, now, entries)
  local more = (lapsed == MAX or #entries >= MAX) and 1 or 0
  return cmsgpack.pack({ now, more, due_windows(root, now), entries })
end

return { run = ledger_upkeep, flags = { 'allow-oom' } }
