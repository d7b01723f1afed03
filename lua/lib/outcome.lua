--- outcome: what a finished run makes of its job. One staged change per kind.
-- An outcome is {id, token, kind, ago_ms, text, extra}: `ago_ms` since the run started, `text` the result as
-- JSON, `extra` a map {error, reason, delay_ms, why, tail = {first, chunks}, ...}.
local change = require('lib.change')
local chunk = require('lib.chunk')
local ending = require('lib.ending')
local job = require('lib.job')
local journal = require('lib.journal')
local num = require('lib.num')

local outcome = {}

local FOREVER = '+inf'

local kinds = {}

function kinds.completed(tx, id, record, line, fields)
  if line[5] then
    fields[#fields + 1] = 'result'
    fields[#fields + 1] = line[5]
  end
  ending.terminal(tx, id, record, 'active', 'completed', fields)
end

function kinds.failed(tx, id, record, line, fields)
  local extra = line[6]
  fields[#fields + 1] = 'reason'
  fields[#fields + 1] = extra.reason
  ending.error(tx, id, record, fields, extra.error, 'failed')
  ending.terminal(tx, id, record, 'active', 'failed', fields)
end

function kinds.cancelled(tx, id, record, _, fields)
  fields[#fields + 1] = 'reason'
  fields[#fields + 1] = 'cancelled'
  ending.terminal(tx, id, record, 'active', 'cancelled', fields)
end

--- What parking stores besides the move: what was streamed so far stays, whatever later runs write.
local function commit_point(record, fields)
  if record.last_chunk then
    fields[#fields + 1] = 'commit'
    fields[#fields + 1] = record.last_chunk
  end
end

--- Back to waiting at its old place, or to delayed until now + delay_ms.
local function put_back(tx, id, record, delay_ms, why, fields)
  if delay_ms > 0 then
    fields[#fields + 1] = 'why'
    fields[#fields + 1] = why
    change.move(tx, id, 'active', 'delayed', tx.now + delay_ms, fields)
    change.note(tx, 'delayed', id)
  else
    change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
    change.note(tx, 'waiting', id)
  end
end

function kinds.retry(tx, id, record, line, fields)
  local extra = line[6]
  fields[#fields + 1] = 'attempt'
  fields[#fields + 1] = num.of(record.attempt, 1) + 1
  ending.error(tx, id, record, fields, extra.error)
  put_back(tx, id, record, extra.delay_ms, 'retry', fields)
end

function kinds.delayed(tx, id, record, line, fields)
  local extra = line[6]
  if extra.why == 'sleep' then
    commit_point(record, fields)
  end
  put_back(tx, id, record, extra.delay_ms, extra.why, fields)
end

--- A claim that never started: no attempt, no stall, same place, and the run number is given back.
function kinds.released(tx, id, record)
  put_back(tx, id, record, 0, '', { 'run', num.of(record.run, 1) - 1 })
end

--- Suspended until its signal or its deadline; straight back to the line if one of them came first.
function kinds.suspended(tx, id, record, _, fields)
  commit_point(record, fields)
  if not record.wait_key or journal.settle_wait(tx.root, id, record, tx.now) then
    change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
    return change.note(tx, 'waiting', id)
  end
  local until_ = record.wait_until ~= '' and record.wait_until or FOREVER
  change.move(tx, id, 'active', 'suspended', until_, fields)
  change.note(tx, 'suspended', id)
end

function kinds.waiting_children(tx, id, record, _, fields)
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

function outcome.is_kind(kind)
  return kinds[kind] ~= nil
end

--- Write the tail of a run's stream, then stage its outcome. A cancelled job ends cancelled whatever its run says.
function outcome.apply(tx, id, record, line)
  local kind, extra = line[3], line[6]
  if extra and extra.tail then
    local run = num.of(record.run, 1)
    local from = chunk.first_new(record, run, extra.tail[1])
    if from and from <= #extra.tail[2] then
      record.last_chunk = chunk.append(tx.root, id, record, run, extra.tail[1], extra.tail[2], from)
    end
  end
  if record.cancel_requested then
    kind = 'cancelled'
  end
  local fields = { 'started_at', tx.now - line[4] }
  kinds[kind](tx, id, record, line, fields)
end

return outcome
