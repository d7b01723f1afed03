--- reclaim: take back the jobs whose lease has expired. Leaderless and idempotent.
local change = require('lib.change')
local ending = require('lib.ending')
local job = require('lib.job')
local layout = require('lib.layout')
local lease = require('lib.lease')
local num = require('lib.num')

local reclaim = {}

local GRACE_MS = 10000 -- after a break leases get this long, or two of their own lengths, to be renewed
local LOST_AS_SUSPECT = 2 -- claims lost before they were reported as started

reclaim.FIELDS = {
  'state', 'token', 'run', 'attempt', 'place', 'stalled', 'lost', 'cancel_requested', 'keep_completed', 'keep_failed',
  'chunk', 'satellites', 'stream_bytes', 'commit', 'parent', 'started_run', 'lease_ms', 'owner', 'started_at',
  'removed', 'ledger', 'remove_at',
}

--- Stage what a lost lease makes of its job.
local function take_back(tx, id, record, max_stalled)
  local fields, run_key = { 'token', '' }, lease.run_key(id, record)
  local started = record.started_run and record.started_run == record.run
  if started then
    record.stalled = num.of(record.stalled, 0) + 1
    fields[#fields + 1] = 'stalled'
    fields[#fields + 1] = record.stalled
  else
    record.lost = math.min(num.of(record.lost, 0) + 1, LOST_AS_SUSPECT)
    local more = { 'lost', record.lost, 'run', math.max(num.of(record.run, 1) - 1, 0) }
    for i = 1, #more do
      fields[#fields + 1] = more[i]
    end
  end
  if record.ledger then
    tx.outbox[#tx.outbox + 1] = { 'kind', 'lapse', 'ledger', record.ledger, 'run', run_key, 'job', id,
      'started', started and record.started_at or tx.now }
  end
  if record.cancel_requested then
    fields[#fields + 1] = 'reason'
    fields[#fields + 1] = 'cancelled'
    return ending.terminal(tx, id, record, 'active', 'cancelled', fields)
  end
  if num.of(record.stalled, 0) > max_stalled then
    fields[#fields + 1] = 'reason'
    fields[#fields + 1] = 'stalled'
    return ending.terminal(tx, id, record, 'active', 'failed', fields)
  end
  change.move(tx, id, 'active', job.waiting_index(record), record.place, fields)
  change.note(tx, 'stalled', id)
end

local function grace_over(record, break_at, now)
  local length = num.of(record.lease_ms, 30000)
  return now >= break_at + math.min(GRACE_MS, 2 * length)
end

--- After the clock has jumped back: a deadline more than two leases ahead would keep a dead worker's job for as long
-- as the jump. Looks at the `limit` latest deadlines.
function reclaim.pull_back(root, now, break_at, limit)
  if now - break_at > GRACE_MS then
    return
  end
  local key = layout.index(root, 'active')
  local latest = redis.call('ZRANGE', key, 0, limit - 1, 'REV', 'WITHSCORES')
  for i = 1, #latest, 2 do
    local length = num.of(redis.call('HGET', layout.job(root, latest[i]), 'lease_ms'), 30000)
    if tonumber(latest[i + 1]) > now + 2 * length then
      redis.call('ZADD', key, 'XX', now + length, latest[i])
    end
  end
end

local function due(root, now, limit)
  return redis.call('ZRANGEBYSCORE', layout.index(root, 'active'), '-inf', now, 'LIMIT', 0, limit)
end

--- Take back up to `limit` expired leases; `break_at` is the last instant at which time stood still.
function reclaim.run(root, now, break_at, limit, call)
  local tx = ending.begin(root, now, call.keep)
  for _, id in ipairs(due(root, now, limit)) do
    local record = job.read(root, id, reclaim.FIELDS)
    if not record or record.state ~= 'active' then
      ending.sweep(root, 'active', id)
    elseif grace_over(record, break_at, now) then
      take_back(tx, id, record, call.max_stalled)
    end
  end
  ending.commit(tx)
end

return reclaim
