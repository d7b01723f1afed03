--- job_remove: take a job that is not running out of the queue, with everything it owns.
-- keys   1  root of the queue
-- args   1  map {id: str}
-- reply  1
-- error  ARG GONE STATE
-- cost   O(log n + satellites)
local arg = require('lib.arg')
local event = require('lib.event')
local job = require('lib.job')
local keep = require('lib.keep')
local layout = require('lib.layout')
local news = require('lib.news')
local num = require('lib.num')
local reply = require('lib.reply')

local function job_remove(keys, args)
  local root, id = keys[1], arg.text(arg.map(args), 'id')
  local record = job.read(root, id, { 'state', 'removed', 'stalled', 'lost' })
  if not record or record.removed then
    reply.gone(id)
  end
  if record.state == 'active' then
    reply.state(id, record.state, 'not running: cancel it first')
  end
  redis.call('ZREM', layout.index(root, job.index_of(record)), id)
  redis.call('ZREM', layout.expiring(root), id)
  keep.remove(root, { id }, num.now())
  event.append(root, { 'removed', id })
  news.publish(root, { id })
  return 1
end

return { run = job_remove, flags = { 'allow-oom' } }
