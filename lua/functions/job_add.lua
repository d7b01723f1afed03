--- job_add: put new jobs into the queue; every one is checked before the first is written.
-- keys   1  root of the queue
-- args   1  map {jobs: [{id, name, priority?, lifo?, delay_ms?, options?, lock_ms?, ttl_ms?, keep_completed?,
--           keep_failed?, parent?, pending?: int (children it waits for), custom?: bool,
--           ledger?: str, unread_ms?, data?: json str}], nonce: str, repeat?: bool}
-- reply  one letter per job, in order: a added, d duplicate (its job is unchanged), r already added by this call
-- error  ARG
-- cost   O(jobs x log waiting); at most 256 jobs
local arg = require('lib.arg')
local change = require('lib.change')
local layout = require('lib.layout')
local line = require('lib.line')
local new_job = require('lib.new_job')
local num = require('lib.num')
local removal = require('lib.removal')

local MAX_JOBS = 256

--- Was this job added by an earlier try of this call?
local function was_added(root, new, map, now, found)
  if not found[1] then
    return removal.was_removed(root, new.custom and new.id .. ' ' .. map.nonce or new.id, now)
  end
  return not found[3] or found[3] == map.nonce
end

--- What stands in the way of this id: nothing, a tombstone (swept here), or a job.
local function existing(root, new, map, now)
  local found = redis.call('HMGET', layout.job(root, new.id), 'state', 'removed', 'added_by')
  if map['repeat'] and was_added(root, new, map, now, found) then
    return 'r'
  end
  if found[1] and not found[2] then
    return 'd'
  end
  new.tombstone = found[1]
  return nil
end

--- Stage one job.
local function stage(tx, new, now, map, sequence)
  if new.tombstone then
    redis.call('UNLINK', layout.job(tx.root, new.id), layout.satellite(tx.root, new.id, 'chunks'))
  end
  if new.ledger then
    redis.call('HSET', layout.meta(tx.root), 'ledger:' .. new.ledger, 1)
  end
  local place = line.place(new.priority, sequence, new.lifo)
  local fields = new_job.fields(new, now, map, num.text(place))
  if new.pending > 0 then
    fields[#fields + 1] = 'pending'
    fields[#fields + 1] = new.pending
    change.move(tx, new.id, 'new', 'waiting_children', now, fields)
  elseif new.delay_ms > 0 then
    change.move(tx, new.id, 'new', 'delayed', now + new.delay_ms, fields)
  else
    change.move(tx, new.id, 'new', 'waiting', place, fields)
  end
  if new.ttl_ms > 0 then
    tx.expiring[#tx.expiring + 1] = now + new.ttl_ms
    tx.expiring[#tx.expiring + 1] = new.id
  end
  change.note(tx, 'added', new.id)
end

local function stage_all(tx, jobs, map, now)
  local verdicts, seen, fresh = {}, {}, {}
  for i, new in ipairs(jobs) do
    local verdict = seen[new.id] and 'd' or existing(tx.root, new, map, now)
    seen[new.id] = true
    verdicts[i] = verdict or 'a'
    if not verdict then
      fresh[#fresh + 1] = new
    end
  end
  if #fresh > 0 then
    local last = redis.call('HINCRBY', layout.meta(tx.root), 'sequence', #fresh)
    for i, new in ipairs(fresh) do
      stage(tx, new, now, map, last - #fresh + i)
    end
  end
  return verdicts
end

local function job_add(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local jobs = arg.list(map, 'jobs', MAX_JOBS)
  arg.text(map, 'nonce')
  new_job.check(jobs)
  local tx = change.begin(root)
  tx.expiring = {}
  local verdicts = stage_all(tx, jobs, map, now)
  if #tx.expiring > 0 then
    redis.call('ZADD', layout.expiring(root), unpack(tx.expiring))
  end
  change.commit(tx)
  return table.concat(verdicts)
end

return { run = job_add, flags = {} }
