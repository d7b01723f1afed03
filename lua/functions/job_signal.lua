--- job_signal: send a message to a job. It is kept until a wait takes it; a job that waits for it goes on. It comes too
-- late for a wait whose deadline has passed, whoever has looked at that.
-- keys   1  root of the queue
-- args   1  map {id, signal: str (the message's id, made by the sender), name: str, message: json str}
-- reply  1 stored, 0 this message was sent before
-- error  ARG GONE STATE (the job has ended, or its mailbox is full)
-- cost   O(mailbox + log n)
local arg = require('lib.arg')
local change = require('lib.change')
local event = require('lib.event')
local job = require('lib.job')
local journal = require('lib.journal')
local layout = require('lib.layout')
local num = require('lib.num')
local reply = require('lib.reply')
local waits = require('lib.waits')

local FIELDS = { 'state', 'removed', 'satellites', 'run', 'waits', 'pending', 'place', 'stalled', 'lost' }

local function job_signal(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, signal = arg.text(map, 'id'), arg.text(map, 'signal')
  local name, message = arg.text(map, 'name'), arg.text(map, 'message')
  local now = num.now()
  local record = job.read(root, id, FIELDS)
  if not record or record.removed then
    reply.gone(id)
  end
  if job.TERMINAL[record.state] then
    reply.state(id, record.state, 'not ended')
  end
  local stored = journal.deliver(root, id, record, signal, name, message, now)
  if not stored then
    reply.state(id, record.state, 'not full: ' .. journal.MAX_MAILBOX .. ' signals wait in its mailbox')
  end
  if stored == 0 and record.state ~= 'suspended' then
    redis.call('ZREM', layout.index(root, 'suspended'), id) -- where a call that broke off may have left it
  end
  if record.state == 'suspended' and waits.settle(root, id, record, now) then
    local tx = change.begin(root)
    change.move(tx, id, 'suspended', job.waiting_index(record), record.place, {})
    change.note(tx, 'waiting', id)
    change.commit(tx)
  end
  event.append(root, { 'signal', id })
  return stored
end

return { run = job_signal, flags = {} }
