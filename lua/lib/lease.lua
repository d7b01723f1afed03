--- lease: what a worker may do with a job it runs: writes carry the token, beats push the deadline forward.
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')
local reply = require('lib.reply')

local lease = {}

lease.DEFAULT_MS = 30000

local RENEWED = { 'state', 'token', 'lease_ms', 'cancel_requested', 'unread_ms', 'read_at', 'started_at' }

--- The name of a run in ledgers: job/run.claim. The claim's number tells runs apart that were lost unstarted.
function lease.run_key(id, record)
  return id .. '/' .. num.text(num.of(record.run, 1)) .. '.' .. (string.match(record.token or '', '^%d+') or '0')
end

--- The record of a job that is running under `token`; else the call fails as GONE or STALE.
-- `fields` begins with 'state', 'token'.
function lease.hold(root, id, token, fields)
  local record = job.read(root, id, fields)
  if not record then
    reply.gone(id)
  end
  if record.state ~= 'active' or record.token ~= token then
    reply.stale(id)
  end
  return record
end

--- Store that runs have really started: [[id, token, ago_ms]]. From then on a lost lease counts as stalled.
function lease.note_started(root, started, now)
  for _, line in ipairs(started) do
    local record = job.read(root, line[1], { 'state', 'token', 'run' })
    if record and record.token == line[2] and record.state == 'active' then
      redis.call('HSET', layout.job(root, line[1]), 'started_run', record.run, 'started_at', now - line[3])
    end
  end
end

--- Has a job that is to stop when nobody reads its stream been unread for too long? Then it is cancelled.
local function is_unread(root, id, record, now)
  local read_at = math.max(num.of(record.read_at, 0), num.of(record.started_at, now))
  if not record.unread_ms or now - read_at <= tonumber(record.unread_ms) then
    return false
  end
  redis.call('HSET', layout.job(root, id), 'cancel_requested', 1)
  return true
end

--- Renew leases [[id, token]]; answers the ids that are lost and those whose job is to be cancelled.
function lease.renew(root, leases, now)
  local pairs_, lost, cancelled = {}, {}, {}
  for _, line in ipairs(leases) do
    local id = line[1]
    local record = job.read(root, id, RENEWED)
    if not record or record.state ~= 'active' or record.token ~= line[2] then
      lost[#lost + 1] = id
    else
      pairs_[#pairs_ + 1] = now + num.of(record.lease_ms, lease.DEFAULT_MS)
      pairs_[#pairs_ + 1] = id
      if record.cancel_requested or is_unread(root, id, record, now) then
        cancelled[#cancelled + 1] = id
      end
    end
  end
  if #pairs_ > 0 then
    redis.call('ZADD', layout.index(root, 'active'), 'XX', unpack(pairs_))
  end
  return lost, cancelled
end

return lease
