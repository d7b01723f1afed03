--- ledger_log: what a budget can show of its past, and the alerts of all budgets. Both are bounded.
local ledger = require('lib.ledger')
local num = require('lib.num')

local log = {}

local LEVELS = { 50, 80, 100 }
local MAX_ENTRIES = 10000
local MAX_EVENTS = 5000

--- One line of a budget's log, packed: [kind, call, window, note, then for each sum its name, what it gained (may be
-- negative), what it has become].
function log.entry(root, id, window, kind, call, deltas, spend, note)
  local line, last = { kind, call, window, note or '' }, 4
  for name, delta in pairs(deltas) do
    line[last + 1], line[last + 2], line[last + 3] = name, delta, spend.used[name] or 0
    last = last + 3
  end
  redis.call('XADD', ledger.key(root, 'entries', id), 'MAXLEN', '~', MAX_ENTRIES, '*', 'line', cmsgpack.pack(line))
end

local function level_of(used, cap)
  if used == 0 or used * 100 < cap * LEVELS[1] then
    return 0
  end
  local level = 0
  for _, percent in ipairs(LEVELS) do
    if used * 100 >= cap * percent then
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
