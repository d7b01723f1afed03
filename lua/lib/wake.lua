--- wake: one token for idle workers, and the inbox of a single worker.
local layout = require('lib.layout')

local wake = {}

local INBOX_MS = 60000

--- Leave a token for one idle worker, unless one lies there already.
function wake.push(root)
  local key = layout.wake(root)
  if redis.call('LLEN', key) == 0 then
    redis.call('RPUSH', key, '1')
  end
end

--- Tell one worker something ("cancel", id, token); it waits on its inbox always.
function wake.tell(root, worker, words)
  local key = layout.inbox(root, worker)
  redis.call('RPUSH', key, words)
  redis.call('PEXPIRE', key, INBOX_MS)
end

return wake
