--- ledger_log: what a budget can show of its past, and the alerts of all budgets. Both are bounded.
local ledger = require('lib.ledger')
local num = require('lib.num')

local log = {}

local LEVELS = { 50, 80, 100 }
local MAX_ENTRIES = 10000
local MAX_EVENTS = 5000

--- One line of a budget's log: `sums` is packed: name, what it gained (may be
-- negative), what it has become, and so on.
function log.entry(root, id, window, kind, call, deltas, spend, note)
  local sums = {}
  for name, delta in pairs(deltas) do
    local last = #sums
    sums[last + 1], sums[last + 2], sums[last + 3] = name, delta, spend.used[name] or 0
  end
  redis.call('XADD', ledger.key(root, 'entries', id), 'MAXLEN', '~', MAX_ENTRIES, '*', 'kind', kind, 'call', call,
    'window', num.text(window), 'note', note or '', 'sums', cmsgpack.pack(sums))
end

local function level_of(used, cap)
  local level = 0
  for _, percent in ipairs(LEVELS) do
    if used * 100 >= cap * percent and used > 0 then
      level = percent
    end
  end
  return level
end

--- Tell once per window of every cap that has reached half, four fifths, all of it. `quiet`: take note only.
function log.alert(root, id, spec, spend, quiet)
  for name, cap in pairs(spec.caps) do
    local used = spend.used[name] or 0
    local level = level_of(used, cap)
    if level > (spend.alerts[name] or 0) and not quiet then
      redis.call('XADD', ledger.key(root, 'events'), 'MAXLEN', '~', MAX_EVENTS, '*', 'budget', id, 'cap', name,
        'percent', level, 'used', num.text(used), 'limit', num.text(cap), 'window', num.text(spec.start))
    end
    if quiet or level > (spend.alerts[name] or 0) then
      spend.alerts[name] = level
    end
  end
end

return log
