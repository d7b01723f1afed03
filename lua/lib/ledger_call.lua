--- ledger_call: the end of a call, however it ends. A record is {state, at, deadline, sent, budgets = [{id, window,
-- held}], limiters = [{name, amounts}], busy = [limiter]}; its states: open -> settled, lapsed (it was never sent:
-- nothing was spent) or unverified (it was: all of it counts, until a settle says better).
local feedback = require('lib.ledger_feedback')
local ledger = require('lib.ledger')
local measure = require('lib.ledger_measure')
local shares = require('lib.ledger_shares')

local call = {}

local SILENCE = { outcome = 'none', retry_after_ms = 0, remaining = {} }

function call.key(root, id)
  return ledger.key(root, 'call', id)
end

--- Take a call that has ended out of the indexes. A repeat does it again: the call before may have broken off here.
function call.leave(root, id, record)
  for _, name in ipairs(record and record.busy or {}) do
    redis.call('ZREM', ledger.key(root, 'slots', name), id)
  end
  redis.call('ZREM', ledger.key(root, 'calls'), id)
  redis.call('ZREM', ledger.key(root, 'deadlines'), id)
end

--- End a call: `use` is {kind, state, tokens, measured, unused?, unknown?, said, note}. Writes; answers what was freed.
function call.finish(root, now, id, record, use)
  local tx = ledger.begin(root, now)
  local freed = shares.settle(tx, id, record, use)
  feedback.settle(tx, id, record, use)
  local rest = record
  if use.state == 'settled' then
    rest = { busy = record.busy } -- all that a repeat needs: there may be millions of them
  end
  rest.state = use.state
  ledger.put(tx, call.key(root, id), rest, ledger.DAY_MS)
  ledger.commit(tx)
  call.leave(root, id, record)
  return freed
end

--- End a call whose owner is gone or too late.
function call.lapse(root, now, id)
  local record = ledger.read({ call.key(root, id) })[1]
  if not record or record.state ~= 'open' then
    call.leave(root, id, record)
    return {}
  end
  local state = record.sent and 'unverified' or 'lapsed'
  local use = { kind = state, state = state, unused = not record.sent, unknown = record.sent, said = SILENCE,
    tokens = {}, measured = measure.of({}, {}) }
  return call.finish(root, now, id, record, use)
end

--- End what is overdue, at most `limit` calls; answers the budgets freed and how many there were.
function call.lapse_overdue(root, now, limit)
  local ids = redis.call('ZRANGEBYSCORE', ledger.key(root, 'deadlines'), '-inf', now, 'LIMIT', 0, limit)
  local freed = {}
  for _, id in ipairs(ids) do
    for _, one in ipairs(call.lapse(root, now, id)) do
      freed[#freed + 1] = one
    end
  end
  return freed, #ids
end

return call
