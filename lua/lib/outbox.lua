--- outbox: what must reach another slot, written in the call that causes it and relayed by workers (see lib/relay).
-- The receiving functions are idempotent: an entry may be relayed more than once.
local layout = require('lib.layout')
local wake = require('lib.wake')

local outbox = {}

outbox.MAX = 100000

--- Is there room for new cross-slot work? What running jobs cause is always taken.
function outbox.is_full(root)
  return redis.call('XLEN', layout.outbox(root)) + redis.call('ZCARD', layout.outbox_due(root)) >= outbox.MAX
end

--- Append entries; each is a flat list {field, value, ...} that begins with 'kind'.
function outbox.put(root, entries)
  for _, entry in ipairs(entries) do
    redis.call('XADD', layout.outbox(root), '*', unpack(entry))
  end
  if #entries > 0 then
    wake.push(root) -- an idle worker relays them
  end
end

--- Is there anything to be relayed now: 1 or 0.
function outbox.is_pending(root, now)
  if redis.call('XLEN', layout.outbox(root)) > 0 then
    return 1
  end
  local head = redis.call('ZRANGE', layout.outbox_due(root), 0, 0, 'WITHSCORES')
  return head[2] and tonumber(head[2]) <= now and 1 or 0
end

return outbox
