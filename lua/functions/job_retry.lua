--- job_retry: put an ended job back into the line: attempts, stalls, losses and the wish to cancel start anew.
-- keys   1  root of the queue
-- args   1  map {id: str, fresh?: bool, nonce?: str, repeat?: bool}; fresh drops its journal and mailbox
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
  'started_run', 'expires_at', 'remove_at', 'chunk', 'stream_bytes', 'commit', 'last_chunk', 'wait_key', 'wait_name',
  'wait_until', 'wait_reason', 'wait_since', 'hops', 'fallback_index', 'progress',
  'update', 'waits',
}
local FRESH = { chunks = true, steps = true, mailbox = true }

--- Take some of a job's own keys away; answers the names of the others.
local function drop(root, id, satellites, doomed)
  local kept = {}
  for name in string.gmatch(satellites or '', '[^,]+') do
    if doomed[name] then
      redis.call('UNLINK', layout.satellite(root, id, name))
    else
      kept[#kept + 1] = name
    end
  end
  return table.concat(kept, ',')
end

local function job_retry(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, nonce = arg.text(map, 'id'), arg.maybe_text(map, 'nonce') or ''
  local record = job.read(root, id, { 'state', 'removed', 'place', 'satellites', 'moved_by' })
  if not record or record.removed then
    reply.gone(id)
  end
  if map['repeat'] and change.was_moved(root, id, record, nonce, { 'failed', 'cancelled' }) then
    return 1
  end
  if record.state ~= 'failed' and record.state ~= 'cancelled' then
    reply.state(id, record.state, 'failed or cancelled')
  end
  redis.call('HDEL', layout.job(root, id), unpack(RESET))
  local satellites = drop(root, id, record.satellites, map.fresh and FRESH or { chunks = true })
  redis.call('ZREM', layout.expiring(root), id)
  local tx = change.begin(root)
  change.move(tx, id, record.state, 'waiting', record.place, {
    'token', '', 'moved_by', nonce, 'satellites', satellites,
  })
  change.note(tx, 'waiting', id)
  change.commit(tx)
  return 1
end

return { run = job_retry, flags = { 'allow-oom' } }
