--- queue_list: ids of the jobs in one state, in the order of its index.
-- keys   1  root of the queue
-- args   1  map {state: str, start: int, limit: int}
-- reply  [id…]; waiting: the suspects first
-- error  ARG
-- cost   O(log n + limit); at most 1,000
local arg = require('lib.arg')
local layout = require('lib.layout')
local reply = require('lib.reply')

local MAX = 1000
local STATES = {}
for i = 1, #layout.INDEXES do -- `ipairs` does not exist while a library loads
  STATES[layout.INDEXES[i]] = true
end

local function range(root, index, start, limit)
  return limit > 0 and redis.call('ZRANGE', layout.index(root, index), start, start + limit - 1) or {}
end

local function queue_list(keys, args)
  local root, map = keys[1], arg.map(args)
  local state = arg.text(map, 'state')
  local start, limit = arg.int(map, 'start', 0, 1e12), arg.int(map, 'limit', 1, MAX)
  if not STATES[state] then
    reply.fail('ARG', 'state not a state')
  end
  if state ~= 'waiting' then
    return range(root, state, start, limit)
  end
  local ids = range(root, 'suspects', start, limit)
  local skipped = redis.call('ZCARD', layout.index(root, 'suspects'))
  for _, id in ipairs(range(root, 'waiting', math.max(start - skipped, 0), limit - #ids)) do
    ids[#ids + 1] = id
  end
  return ids
end

return { run = queue_list, flags = { 'no-writes' } }
