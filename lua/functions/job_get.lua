--- job_get: everything known of one job.
-- keys   1  root of the queue
-- args   1  map {id: str}
-- reply  [fields of the job [name, value…], its usage [name, value…], its errors […], its state's score];
--        empty fields: no such job
-- error  ARG
-- cost   O(fields + usage entries)
local arg = require('lib.arg')
local job = require('lib.job')
local layout = require('lib.layout')

local function job_get(keys, args)
  local root, map = keys[1], arg.map(args)
  local id = arg.text(map, 'id')
  local record = job.read(root, id, { 'state', 'removed', 'satellites', 'stalled', 'lost' })
  if not record or record.removed then
    return { {}, {}, {}, '' }
  end
  local usage, errors = {}, {}
  if job.has_satellite(record.satellites, 'usage') then
    usage = redis.call('HGETALL', layout.satellite(root, id, 'usage'))
  end
  if job.has_satellite(record.satellites, 'errors') then
    errors = redis.call('LRANGE', layout.satellite(root, id, 'errors'), 0, -1)
  end
  local score = redis.call('ZSCORE', layout.index(root, job.index_of(record)), id)
  return { redis.call('HGETALL', layout.job(root, id)), usage, errors, score or '' }
end

return { run = job_get, flags = { 'no-writes' } }
