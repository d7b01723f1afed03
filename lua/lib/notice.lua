--- notice: whom a job's end concerns in other slots: its parents, its children, the dead-letter queue.
local family = require('lib.family')
local layout = require('lib.layout')

local notice = {}

--- The outbox entry that copies a job that has failed for good to the worker's dead-letter queue.
local function dead_letter(tx, id, fields)
  local entry = { 'kind', 'dead', 'queue', tx.defaults.dead_letter, 'id', id }
  local kept = redis.call('HMGET', layout.job(tx.root, id), 'name', 'data', 'options', 'attempt')
  for i, name in ipairs({ 'name', 'data', 'options', 'attempt' }) do
    if kept[i] then
      entry[#entry + 1] = name
      entry[#entry + 1] = kept[i]
    end
  end
  return family.with_ending(entry, fields)
end

--- Stage the outbox entries of a job's end in `state`; `fields` is what its hash gains.
function notice.stage(tx, id, record, state, fields)
  local entries = tx.outbox
  if state == 'failed' and tx.defaults.dead_letter then
    entries[#entries + 1] = dead_letter(tx, id, fields)
  end
  if record.parent then
    entries[#entries + 1] = family.entry(tx.root, id, record, state, fields)
  end
  if state == 'cancelled' then
    for _, entry in ipairs(family.cancellations(tx.root, id, record)) do
      entries[#entries + 1] = entry
    end
  end
end

return notice
