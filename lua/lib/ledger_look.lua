--- ledger_look: reads by one command all that a reserve depends on but the sums of its budgets.
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local memory = require('lib.ledger_memory')

local look = {}

local function names_of(root, call)
  local keys = { ledger.key(root, 'call', call.call), ledger.key(root, 'ticket', call.ticket) }
  for _, id in ipairs(call.budgets) do
    keys[#keys + 1] = ledger.key(root, 'budget', id)
  end
  for _, line in ipairs(call.limiters) do
    line.key = ledger.key(root, 'limiter', line.name)
    keys[#keys + 1] = line.key
  end
  return keys
end

--- Add to a call its `record` and `promise`, the `specs` of its budgets (and which is `missing`), and to each of its
-- limiters key and state.
function look.up(root, call)
  local texts = redis.call('MGET', unpack(names_of(root, call)))
  local at = 2
  call.record = texts[1] and cmsgpack.unpack(texts[1])
  call.promise = texts[2] and cmsgpack.unpack(texts[2])
  call.specs = {}
  for i, id in ipairs(call.budgets) do
    call.specs[i] = budget.parsed(texts[at + i])
    call.missing = call.missing or not call.specs[i] and id
  end
  at = at + #call.budgets
  for i, line in ipairs(call.limiters) do
    line.state = texts[at + i] and memory.take(line.key, texts[at + i]) or limiter.new()
    line.state.conf = line.text
  end
end

return look
