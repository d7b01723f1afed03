--- new_job: a job as it is given to `job_add`: checked, and as the fields of its hash.
local arg = require('lib.arg')

local new_job = {}

local DAY_MS = 86400000
local TEXTS = { 'options', 'keep_completed', 'keep_failed', 'parent', 'ledger', 'data' }
local COPIED = { 'options', 'lock_ms', 'keep_completed', 'keep_failed', 'parent', 'ledger', 'unread_ms' }

--- Check all jobs of a call; defaults are filled in.
function new_job.check(jobs)
  for _, new in ipairs(jobs) do
    arg.text(new, 'id')
    arg.text(new, 'name')
    for _, name in ipairs(TEXTS) do
      arg.maybe_text(new, name)
    end
    new.priority = arg.int(new, 'priority', 0, 2048, 1000)
    new.delay_ms = arg.int(new, 'delay_ms', 0, 36500 * DAY_MS, 0)
    new.lock_ms = new.lock_ms and arg.int(new, 'lock_ms', 1, DAY_MS)
    new.unread_ms = new.unread_ms and arg.int(new, 'unread_ms', 1, DAY_MS)
    new.pending = arg.int(new, 'pending', 0, 10000, 0)
    new.ttl_ms = arg.int(new, 'ttl_ms', 0, 36500 * DAY_MS, 0)
  end
end

--- The fields of a new job's hash, a flat list; its state is up to its move.
function new_job.fields(new, now, map, place)
  local fields = { 'name', new.name, 'place', place, 'created_at', now }
  for _, name in ipairs(COPIED) do
    if new[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = new[name]
    end
  end
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if new.data then add('data', new.data) end
  if new.custom then add('added_by', map.nonce) end
  if new.ttl_ms > 0 then add('expires_at', now + new.ttl_ms) end
  if new.delay_ms > 0 then add('why', 'delay') end
  return fields
end

return new_job
