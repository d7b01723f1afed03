--- waits: what a parked job waits for. A run may have come to several waits at once, and any of them ends the park.
-- The job's field `waits` is the run's number and a line "KEY NAME UNTIL" per wait; NAME is "*" for any signal, "-" for
-- none, UNTIL is "-" without a deadline. `wait_key` and its like tell of the last one, for listings.
-- A record must have `run`, `waits`, `pending` and `satellites` here.
local journal = require('lib.journal')
local layout = require('lib.layout')
local num = require('lib.num')

local waits = {}

--- Does a wait of this key end by signals? Else it is one for a time or for children.
local function takes_signals(key)
  return string.find(key, '^signal:') or string.find(key, '^suspend:')
end

--- The lines of the current run.
local function lines_of(record)
  local run, lines = string.match(record.waits or '', '^(%d+)(.*)$')
  return run == record.run and lines or ''
end

--- Store a wait that the run has come to. A commit point: a later run comes back to it before it writes anything.
function waits.note(root, id, record, wait)
  local lines, until_ = lines_of(record), wait.until_ and num.text(wait.until_) or ''
  if not string.find(lines, '\n' .. wait.key .. ' ', 1, true) then
    lines = lines .. '\n' .. wait.key .. ' ' .. (wait.name or '-') .. ' ' .. (until_ ~= '' and until_ or '-')
  end
  redis.call('HSET', layout.job(root, id), 'waits', record.run .. lines, 'wait_key', wait.key,
    'wait_name', wait.name or '', 'wait_until', until_, 'wait_reason', wait.reason or '', 'wait_since', num.now(),
    'started_run', record.run, 'commit', record.last_chunk or '')
end

local function is_over(root, id, record, now, key, name, until_)
  if string.find(key, '^children:') then
    return num.of(record.pending, 0) <= 0
  end
  local is_mail = takes_signals(key)
  if journal.get(root, id, key) or is_mail and journal.consume(root, id, record, key, name, until_) then
    return true
  end
  if until_ and until_ <= now then
    journal.put(root, id, record, key, is_mail and '{"timeout":true}' or '{"slept":true}')
    return true
  end
  return false
end

--- Try to end one of the waits that a job is in: by a message, or by a deadline. Answers whether one is over, or there
-- was none; else the earliest deadline, if there is one.
function waits.settle(root, id, record, now)
  local earliest, any = nil, false
  for key, name, text in string.gmatch(lines_of(record), '\n(%S+) (%S+) (%S+)') do
    local until_ = tonumber(text)
    if is_over(root, id, record, now, key, name, until_) then
      return true
    end
    earliest, any = until_ and math.min(until_, earliest or until_) or earliest, true
  end
  return not any, earliest
end

--- Is this job suspended for its children, beside other things?
function waits.is_for_children(record)
  return record.state == 'suspended' and string.find(lines_of(record), '\nchildren:') ~= nil
end

return waits
