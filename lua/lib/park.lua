--- park: a run that gives its job back unfinished: to the line, to a later time, or to a wait.
local change = require('lib.change')
local ending = require('lib.ending')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')
local waits = require('lib.waits')

local park = {}

local FOREVER = '+inf'

--- What parking stores besides the move: what was streamed so far stays, whatever later runs write.
local function commit_point(record, fields)
  if record.last_chunk then
    fields[#fields + 1] = 'commit'
    fields[#fields + 1] = record.last_chunk
  end
end

--- Back to waiting at its old place, or to delayed until now + delay_ms (nil: until it is unparked).
function park.put_back(tx, id, record, delay_ms, why, fields)
  if not delay_ms or delay_ms > 0 then
    fields[#fields + 1] = 'why'
    fields[#fields + 1] = why
    change.move(tx, id, 'active', 'delayed', delay_ms and tx.now + delay_ms or FOREVER, fields)
    change.note(tx, 'delayed', id)
  else
    change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
    change.note(tx, 'waiting', id)
  end
end

--- Has room come up since this park was decided? Then its unpark has passed it by.
local function is_overtaken(tx, extra)
  if not extra.on then
    return false
  end
  local seen = redis.call('GET', layout.generation(tx.root, extra.on))
  return num.of(seen, -1) > (extra.generation or 0)
end

function park.delayed(tx, id, record, line, fields)
  local extra = line[6]
  if is_overtaken(tx, extra) then
    return park.put_back(tx, id, record, 0, '', fields)
  end
  if extra.why == 'sleep' then
    commit_point(record, fields)
  end
  park.put_back(tx, id, record, extra.delay_ms, extra.why, fields)
end

--- Suspended until a signal or a deadline; straight back to the line if one of them came first.
function park.suspended(tx, id, record, line, fields)
  if record.child_failed and string.find(record.waits or '', '\nchildren:') then
    return park.waiting_children(tx, id, record, line, fields)
  end
  commit_point(record, fields)
  local is_over, earliest = waits.settle(tx.root, id, record, tx.now)
  if is_over then
    change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
    return change.note(tx, 'waiting', id)
  end
  change.move(tx, id, 'active', 'suspended', earliest or FOREVER, fields)
  change.note(tx, 'suspended', id)
end

function park.waiting_children(tx, id, record, _, fields)
  commit_point(record, fields)
  if record.child_failed then
    fields[#fields + 1] = 'reason'
    fields[#fields + 1] = 'child_failed'
    ending.error(tx, id, record, fields, record.child_failed, 'failed')
    return ending.terminal(tx, id, record, 'active', 'failed', fields)
  end
  if num.of(record.pending, 0) <= 0 then
    change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
    return change.note(tx, 'waiting', id)
  end
  change.move(tx, id, 'active', 'waiting_children', tx.now, fields)
  change.note(tx, 'waiting_children', id)
end

return park
