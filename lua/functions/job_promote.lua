--- job_promote: start a delayed job now.
-- keys   1  root of the queue
-- args   1  map {id: str}
-- reply  1
-- error  ARG GONE STATE
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local job = require('lib.job')
local reply = require('lib.reply')

local function job_promote(keys, args)
  local root, id = keys[1], arg.text(arg.map(args), 'id')
  local record = job.read(root, id, { 'state', 'removed', 'place', 'stalled', 'lost' })
  if not record or record.removed then
    reply.gone(id)
  end
  if record.state ~= 'delayed' then
    reply.state(id, record.state, 'delayed')
  end
  local tx = change.begin(root)
  change.move(tx, id, 'delayed', job.waiting_index(record), record.place, {})
  change.note(tx, 'waiting', id)
  change.commit(tx)
  return 1
end

return { run = job_promote, flags = { 'allow-oom' } }
