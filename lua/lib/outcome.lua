--- outcome: what a finished run makes of its job. One staged change per kind.
-- An outcome is {id, token, kind, ago_ms, text, extra}: `ago_ms` since the run started, `text` the result as
-- JSON, `extra` a map {error, reason, delay_ms, why, tail = {first, chunks}, ...}.
local chunk = require('lib.chunk')
local ending = require('lib.ending')
local num = require('lib.num')
local park = require('lib.park')

local outcome = {}

local kinds = {
  delayed = park.delayed,
  suspended = park.suspended,
  waiting_children = park.waiting_children,
}

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

function kinds.retry(tx, id, record, line, fields)
  local extra = line[6]
  fields[#fields + 1] = 'attempt'
  fields[#fields + 1] = num.of(record.attempt, 1) + 1
  if extra.fallback then
    fields[#fields + 1] = 'fallback_index'
    fields[#fields + 1] = extra.fallback
  end
  ending.error(tx, id, record, fields, extra.error)
  park.put_back(tx, id, record, extra.delay_ms, 'retry', fields)
end

--- A claim that never started: no attempt, no stall, same place, and the run number is given back. Not that of a run
-- which has written something: the next one's would be taken for it.
function kinds.released(tx, id, record)
  local step = record.started_run == record.run and 0 or 1
  park.put_back(tx, id, record, 0, '', { 'run', num.of(record.run, 1) - step })
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
