--- job_retry: put an ended job back into the line: attempts, stalls, losses and the wish to cancel start anew.
-- keys   1  root of the queue
-- args   1  map {id: str, fresh?: bool}; fresh drops the journal of its steps
-- reply  1
-- error  ARG GONE STATE
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local job = require('lib.job')
local layout = require('lib.layout')
local reply = require('lib.reply')

local RESET = {
  'attempt', 'stalled', 'lost', 'cancel_requested', 'result', 'error', 'reason', 'finished_at', 'started_at',
  'started_run', 'expires_at', 'chunk', 'stream_bytes', 'commit', 'last_chunk', 'wait_key', 'wait_name',
  'wait_until', 'wait_reason', 'wait_since', 'hops', 'progress',
  'update',
}

local function job_retry(keys, args)
  local root, map = keys[1], arg.map(args)
  local id = arg.text(map, 'id')
  local record = job.read(root, id, { 'state', 'removed', 'place', 'satellites' })
  if not record or record.removed then
    reply.gone(id)
  end
  if record.state ~= 'failed' and record.state ~= 'cancelled' then
    reply.state(id, record.state, 'failed or cancelled')
  end
  local key = layout.job(root, id)
  redis.call('HDEL', key, unpack(RESET))
  redis.call('UNLINK', layout.satellite(root, id, 'chunks'))
  if map.fresh then
    redis.call('UNLINK', layout.satellite(root, id, 'steps'), layout.satellite(root, id, 'mailbox'))
  end
  redis.call('ZREM', layout.expiring(root), id)
  local tx = change.begin(root)
  change.move(tx, id, record.state, 'waiting', record.place, { 'token', '' })
  change.note(tx, 'waiting', id)
  change.commit(tx)
  return 1
end

return { run = job_retry, flags = { 'allow-oom' } }
