--- queue_workers: the workers that have called within ten minutes, and how many jobs each holds.
-- keys   1  root of the queue
-- args   none
-- reply  packed [[name, ms since its last call, jobs]…], the latest caller first
-- error  none
-- cost   O(workers + active jobs); at most 1,000 of each are looked at
local layout = require('lib.layout')
local num = require('lib.num')

local MAX = 1000

--- How many active jobs each owner holds.
local function held(root)
  local counts = {}
  for _, id in ipairs(redis.call('ZRANGE', layout.index(root, 'active'), 0, MAX - 1)) do
    local owner = redis.call('HGET', layout.job(root, id), 'owner')
    if owner then
      counts[owner] = (counts[owner] or 0) + 1
    end
  end
  return counts
end

local function queue_workers(keys)
  local root, now, found = keys[1], num.now(), {}
  local seen, counts = redis.call('ZRANGE', layout.workers(root), 0, MAX - 1, 'REV', 'WITHSCORES'), held(root)
  for i = 1, #seen, 2 do
    found[#found + 1] = { seen[i], math.max(0, now - tonumber(seen[i + 1])), counts[seen[i]] or 0 }
  end
  return cmsgpack.pack(found)
end

return { run = queue_workers, flags = { 'no-writes' } }
