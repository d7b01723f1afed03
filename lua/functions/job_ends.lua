--- job_ends: how jobs have ended, for those who wait for results.
-- keys   1  root of the queue
-- args   1  map {ids: [str]}
-- reply  per id: [state, result, error, reason, attempt]; state "" while it has not ended, "gone" if unknown
-- error  ARG
-- cost   O(ids); at most 256
local arg = require('lib.arg')
local job = require('lib.job')

local MAX = 256

local function job_ends(keys, args)
  local root, rows = keys[1], {}
  for i, id in ipairs(arg.texts(arg.map(args), 'ids', MAX)) do
    local record = job.read(root, id, { 'state', 'result', 'error', 'reason', 'attempt' })
    if not record then
      rows[i] = { 'gone' }
    elseif job.TERMINAL[record.state] then
      rows[i] = { record.state, record.result or '', record.error or '', record.reason or '', record.attempt or '1' }
    else
      rows[i] = { '' }
    end
  end
  return rows
end

return { run = job_ends, flags = { 'no-writes' } }
