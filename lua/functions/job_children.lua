--- job_children: the children of a job and how they have ended.
-- keys   1  root of the queue
-- args   1  map {id: str}
-- reply  [pending, [key, {queue, id}, "key:end", ending, …]]
-- error  ARG
-- cost   O(children)
local arg = require('lib.arg')
local family = require('lib.family')
local layout = require('lib.layout')
local num = require('lib.num')

local function job_children(keys, args)
  local root, id = keys[1], arg.text(arg.map(args), 'id')
  local pending = redis.call('HGET', layout.job(root, id), 'pending')
  return { num.of(pending, 0), redis.call('HGETALL', family.key(root, id)) }
end

return { run = job_children, flags = { 'no-writes' } }
