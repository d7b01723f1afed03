--- upkeep: the bounded round of housekeeping in each turn: promote what is due, take back expired leases, and
-- in a tick fire deadlines of waits, expiries and retention. Leaderless: whoever calls does it.
local change = require('lib.change')
local ending = require('lib.ending')
local expiry = require('lib.expiry')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')
local reclaim = require('lib.reclaim')
local waits = require('lib.waits')

local upkeep = {}

local PAUSE_MS = 2500 -- a longer silence (an idle worker calls every 2 s) means that everybody stood still
local TICK_MS = 200
local BATCH = 100
local WORKER_MS = 600000
local WAIT_FIELDS = { 'state', 'place', 'stalled', 'lost', 'satellites', 'run', 'waits', 'pending', 'removed' }

--- Score of an index's first job, or nil.
local function head(root, index)
  return tonumber(redis.call('ZRANGE', layout.index(root, index), 0, 0, 'WITHSCORES')[2] or false)
end

--- The last instant at which time stood still or jumped, by the time of the last call.
function upkeep.break_at(meta, now)
  local last = num.of(meta.last_call, now)
  if now - last > PAUSE_MS or now < last then
    return now
  end
  return num.of(meta.break_at, 0)
end

--- Move the due jobs of an index of waits back to the line, at their old place.
local function release_due(root, index, now)
  local ids = redis.call('ZRANGEBYSCORE', layout.index(root, index), '-inf', now, 'LIMIT', 0, BATCH)
  if #ids == 0 then
    return
  end
  local tx = change.begin(root)
  for _, id in ipairs(ids) do
    local record = job.read(root, id, WAIT_FIELDS)
    if record and record.state == index then
      if index == 'suspended' then
        waits.settle(root, id, record, now)
      end
      change.move(tx, id, index, job.waiting_index(record), record.place, {})
      change.note(tx, 'waiting', id)
    else
      ending.sweep(root, index, id)
    end
  end
  change.commit(tx)
end

local function tick(root, now, break_at, call)
  reclaim.pull_back(root, now, break_at, BATCH)
  release_due(root, 'suspended', now)
  expiry.run(root, now, call.keep)
  redis.call('ZREMRANGEBYSCORE', layout.workers(root), '-inf', now - WORKER_MS)
end

--- Milliseconds until the earliest instant at which a call could do something, or -1. Four peeks: for idle callers.
function upkeep.next_ms(root, now)
  local earliest = math.huge
  for _, index in ipairs({ 'delayed', 'active', 'suspended', 'expiring' }) do
    earliest = math.min(earliest, head(root, index) or math.huge)
  end
  if earliest == math.huge then
    return -1
  end
  return math.max(earliest - now, earliest <= now and TICK_MS or 1)
end

--- One round. `meta` is the queue's {last_call, break_at, tick_at}; `call` has {keep, max_stalled, worker}.
function upkeep.run(root, now, meta, call)
  local break_at = upkeep.break_at(meta, now)
  if (head(root, 'delayed') or math.huge) <= now then
    release_due(root, 'delayed', now)
  end
  if (head(root, 'active') or math.huge) <= now then
    reclaim.run(root, now, break_at, BATCH, call)
  end
  local fields = { 'last_call', now, 'break_at', break_at }
  if math.abs(now - num.of(meta.tick_at, 0)) >= TICK_MS then
    tick(root, now, break_at, call)
    fields[#fields + 1] = 'tick_at'
    fields[#fields + 1] = now
  end
  redis.call('HSET', layout.meta(root), unpack(fields))
  redis.call('ZADD', layout.workers(root), now, call.worker)
end

return upkeep
