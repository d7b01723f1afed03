--- event: the queue's event stream. One entry per call, whose fields are (event, job id) pairs in order; a pair
-- ("+", JSON) tells more of the one before.
local layout = require('lib.layout')

local event = { MORE = '+' }

local MAX_ENTRIES = 5000

--- Append `pairs_`, a flat list {event, id, event, id, ...}.
function event.append(root, pairs_)
  if #pairs_ > 0 then
    redis.call('XADD', layout.events(root), 'MAXLEN', '~', MAX_ENTRIES, '*', unpack(pairs_))
  end
end

return event
