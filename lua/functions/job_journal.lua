--- job_journal: everything a job remembers, for a run that starts again from the top.
-- keys   1  root of the queue
-- args   1  map {id: str}
-- reply  [key, entry, …]; keys with a leading "?" have begun and not ended
-- error  ARG
-- cost   O(steps)
local arg = require('lib.arg')
local journal = require('lib.journal')

local function job_journal(keys, args)
  return redis.call('HGETALL', journal.key(keys[1], arg.text(arg.map(args), 'id')))
end

return { run = job_journal, flags = { 'no-writes' } }
