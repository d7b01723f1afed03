--- job_cancel: end a job that is not running; ask a running one to stop. The wish belongs to the job, not to a run.
-- keys   1  root of the queue
-- args   1  map {id: str, repeat?: bool}
-- reply  "cancelled" ended here, "requested" its worker was told, "ended" it had ended before
-- error  ARG GONE
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local defaults = require('lib.defaults')
local ending = require('lib.ending')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')
local reply = require('lib.reply')
local wake = require('lib.wake')

local FIELDS = {
  'state', 'removed', 'token', 'owner', 'run', 'stalled', 'lost', 'keep_completed', 'keep_failed', 'chunk',
  'satellites', 'stream_bytes', 'commit', 'parent', 'cancel_requested',
}

--- The repeat of a call that may have ended the job: finish what it did.
local function again(root, id)
  for _, index in ipairs({ 'waiting', 'suspects', 'delayed', 'suspended', 'waiting_children' }) do
    ending.sweep(root, index, id)
  end
  return 'cancelled'
end

local function job_cancel(keys, args)
  local root, map = keys[1], arg.map(args)
  local id = arg.text(map, 'id')
  local record = job.read(root, id, FIELDS)
  if map['repeat'] and record and record.state == 'cancelled' and record.cancel_requested then
    return again(root, id)
  end
  if not record or record.removed then
    reply.gone(id)
  end
  if job.TERMINAL[record.state] then
    return 'ended'
  end
  if record.state == 'active' then
    redis.call('HSET', layout.job(root, id), 'cancel_requested', 1)
    wake.tell(root, record.owner, 'cancel ' .. id .. ' ' .. record.token)
    return 'requested'
  end
  local tx = ending.begin(root, num.now(), defaults.read(root))
  change.set(tx, id, { 'cancel_requested', 1 })
  ending.terminal(tx, id, record, job.index_of(record), 'cancelled', { 'reason', 'cancelled' })
  ending.commit(tx)
  return 'cancelled'
end

return { run = job_cancel, flags = { 'allow-oom' } }
