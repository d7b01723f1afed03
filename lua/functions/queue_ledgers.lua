--- queue_ledgers: the ledgers that jobs of this queue use.
-- keys   1  root of the queue
-- args   none
-- reply  [name…]
-- error  none
-- cost   O(ledgers)
local layout = require('lib.layout')

local function queue_ledgers(keys)
  local names = {}
  for _, field in ipairs(redis.call('HKEYS', layout.meta(keys[1]))) do
    local name = string.match(field, '^ledger:(.+)$')
    if name then
      names[#names + 1] = name
    end
  end
  return names
end

return { run = queue_ledgers, flags = { 'no-writes' } }
