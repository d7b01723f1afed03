--- job_log: the log lines of a job.
-- keys   1  root of the queue
-- args   1  map {id: str, start: int, limit: int}
-- reply  [line…]
-- error  ARG
-- cost   O(limit); at most 1,000
local arg = require('lib.arg')
local layout = require('lib.layout')

local function job_log(keys, args)
  local root, map = keys[1], arg.map(args)
  local start, limit = arg.int(map, 'start', 0, 1e9), arg.int(map, 'limit', 1, 1000)
  return redis.call('LRANGE', layout.satellite(root, arg.text(map, 'id'), 'log'), start, start + limit - 1)
end

return { run = job_log, flags = { 'no-writes' } }
