--- layout: every key of a queue, from its root key `glidemq:{queue}`.
-- Twin of src/glidemq_core/_keys.py; a test compares the two through `key_names`.
local layout = {}

-- State indexes: sorted sets of job ids. `suspects` holds the waiting jobs that were lost before.
layout.INDEXES = {
  'waiting', 'suspects', 'delayed', 'active', 'suspended', 'waiting_children',
  'completed', 'failed', 'cancelled',
}

-- Keys that a job may own beside its hash; the job's `satellites` field names those that exist.
layout.SATELLITES = { 'chunks', 'log', 'errors', 'usage', 'steps', 'mailbox', 'children' }

function layout.index(root, name)
  return root .. ':' .. name
end

function layout.job(root, id)
  return root .. ':job:' .. id
end

function layout.satellite(root, id, name)
  return root .. ':job:' .. id .. ':' .. name
end

function layout.meta(root)
  return root .. ':meta'
end

function layout.wake(root)
  return root .. ':wake'
end

function layout.inbox(root, worker)
  return root .. ':inbox:' .. worker
end

function layout.turn(root, worker)
  return root .. ':turn:' .. worker
end

function layout.workers(root)
  return root .. ':workers'
end

-- Job ids by the time at which the tick has to look at them: a ttl or an age of retention.
function layout.expiring(root)
  return root .. ':expiring'
end

-- Ids removed in one minute, so that a repeated add doesn't bring them back.
function layout.removed(root, minute)
  return root .. ':removed:' .. string.format('%.0f', minute)
end

function layout.events(root)
  return root .. ':events'
end

-- What must reach another slot, until its relay is acknowledged.
function layout.outbox(root)
  return root .. ':outbox'
end

-- What of it could not be relayed, and by when it is tried again.
function layout.outbox_stuck(root)
  return root .. ':outbox_stuck'
end

function layout.outbox_due(root)
  return root .. ':outbox_due'
end

-- The newest generation of a budget of which an unpark has come: what was parked on an older one waits no more.
function layout.generation(root, on)
  return root .. ':generation:' .. on
end

function layout.minute(root, minute)
  return root .. ':minute:' .. string.format('%.0f', minute)
end

-- The same of an hour, kept for longer.
function layout.hour(root, hour)
  return root .. ':hour:' .. string.format('%.0f', hour)
end

function layout.models(root)
  return root .. ':models'
end

function layout.news(root)
  return root .. ':news'
end

return layout
