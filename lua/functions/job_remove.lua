--- job_remove: take a job that is not running out of the queue, with everything it owns. Parents that wait for it are
-- told: to them it has not completed.
-- keys   1  root of the queue
-- args   1  map {id: str, nonce?: str, repeat?: bool}
-- reply  1
-- error  ARG GONE STATE
-- cost   O(log n + satellites)
local arg = require('lib.arg')
local event = require('lib.event')
local family = require('lib.family')
local job = require('lib.job')
local layout = require('lib.layout')
local news = require('lib.news')
local num = require('lib.num')
local outbox = require('lib.outbox')
local removal = require('lib.removal')
local reply = require('lib.reply')

local FIELDS = { 'state', 'removed', 'removing', 'parent', 'satellites' }

--- Out of every index: after a break a job may be in two.
local function leave(root, id)
  for _, index in ipairs(layout.INDEXES) do
    redis.call('ZREM', layout.index(root, index), id)
  end
  redis.call('ZREM', layout.expiring(root), id)
end

--- Was the job removed by an earlier try of this call? Under its id there may be another one by now.
local function was_done(root, id, record, nonce, now)
  if not nonce or not removal.was_removed(root, id .. ' ' .. nonce, now) or record and record.removing == nonce then
    return false
  end
  if not record then
    leave(root, id)
  end
  return true
end

local function job_remove(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, nonce = arg.text(map, 'id'), arg.maybe_text(map, 'nonce')
  local record = job.read(root, id, FIELDS)
  if map['repeat'] and was_done(root, id, record, nonce, now) then
    return 1
  end
  if not record or record.removed then
    reply.gone(id)
  end
  if record.state == 'active' then
    reply.state(id, record.state, 'not running: cancel it first')
  end
  redis.call('HSET', layout.job(root, id), 'removing', nonce or '')
  if record.parent and not job.TERMINAL[record.state] then
    outbox.put(root, { family.entry(root, id, record, 'removed', { 'reason', 'removed' }) })
  end
  removal.remove(root, { id }, now, nil, nonce)
  leave(root, id)
  event.append(root, { 'removed', id })
  news.publish(root, { id })
  return 1
end

return { run = job_remove, flags = { 'allow-oom' } }
