--- job_beat: renew all leases of one worker in one call, and learn what was lost, cancelled, or is to be left.
-- keys   1  root of the queue
-- args   1  map {worker: str, leases: [[id, token]], started?: [[id, token, ago_ms]]}
-- reply  packed [lost ids, ids to be cancelled, drain, revision]
-- error  ARG
-- cost   O(leases); at most 1,000
local arg = require('lib.arg')
local build = require('lib.build')
local layout = require('lib.layout')
local lease = require('lib.lease')
local num = require('lib.num')
local upkeep = require('lib.upkeep')

local MAX = 1000

local function job_beat(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local worker = arg.text(map, 'worker')
  local leases, started = arg.runs(map, 'leases', MAX), arg.runs(map, 'started', MAX, true)
  local values = redis.call('HMGET', layout.meta(root), 'last_call', 'break_at', 'drain')
  local break_at = upkeep.break_at({ last_call = values[1], break_at = values[2] }, now)
  lease.note_started(root, started, now)
  local lost, cancelled = lease.renew(root, leases, now)
  redis.call('HSET', layout.meta(root), 'last_call', now, 'break_at', break_at)
  redis.call('ZADD', layout.workers(root), now, worker)
  return cmsgpack.pack({ lost, cancelled, values[3] and 1 or 0, build.revision })
end

return { run = job_beat, flags = { 'allow-oom' } }
