--- job_promote: start a delayed job now.
-- keys   1  root of the queue
-- args   1  map {id: str, nonce?: str, repeat?: bool}
-- reply  1
-- error  ARG GONE STATE
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local job = require('lib.job')
local reply = require('lib.reply')

local function job_promote(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, nonce = arg.text(map, 'id'), arg.maybe_text(map, 'nonce') or ''
  local record = job.read(root, id, { 'state', 'removed', 'place', 'stalled', 'lost', 'moved_by' })
  if not record or record.removed then
    reply.gone(id)
  end
  if map['repeat'] and change.was_moved(root, id, record, nonce, { 'delayed' }) then
    return 1
  end
  if record.state ~= 'delayed' then
    reply.state(id, record.state, 'delayed')
  end
  local tx = change.begin(root)
  change.move(tx, id, 'delayed', job.waiting_index(record), record.place, { 'moved_by', nonce })
  change.note(tx, 'waiting', id)
  change.commit(tx)
  return 1
end

return { run = job_promote, flags = { 'allow-oom' } }
