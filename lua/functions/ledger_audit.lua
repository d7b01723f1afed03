--- ledger_audit: one page of the open reservations of a budget, added up from their own records.
-- keys   1  root of the ledger
-- args   1  map {id, after: str (the last call of the page before, "": from the start)}
-- reply  packed [version of the sums (pages of one audit must agree), window, held sums as stored, used sums as
--        stored, held by this page's open calls, how many, last call ("": this was the last page)]; [] if the budget
--        is missing
-- error  ARG
-- cost   O(calls); at most 500
local arg = require('lib.arg')
local budget = require('lib.ledger_budget')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')

local PAGE = 500

--- Add up what the open calls of a page hold of a budget's window.
local function add_up(root, ids, id, window)
  local keys, sums, count = {}, {}, 0
  for i, name in ipairs(ids) do
    keys[i] = calls.key(root, name)
  end
  local records = ledger.read(keys)
  for i in ipairs(ids) do
    for _, share in ipairs(records[i] and records[i].state == 'open' and records[i].budgets or {}) do
      if share.id == id and share.window == window then
        budget.add(sums, share.held, 1)
        count = count + 1
      end
    end
  end
  return sums, count
end

local function ledger_audit(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, after = arg.text(map, 'id'), arg.text(map, 'after')
  local spec = budget.specs(root, { id })[1]
  if not spec then
    return cmsgpack.pack({})
  end
  local from = after == '' and '-' or '(' .. after
  local ids = redis.call('ZRANGEBYLEX', ledger.key(root, 'calls'), from, '+', 'LIMIT', 0, PAGE)
  local spend = budget.spends(root, { id }, { spec.start })[1]
  local sums, count = add_up(root, ids, id, spec.start)
  local last = #ids == PAGE and ids[PAGE] or ''
  return cmsgpack.pack({ spend.version, spec.start, spend.held, spend.used, sums, count, last })
end

return { run = ledger_audit, flags = { 'no-writes' } }
