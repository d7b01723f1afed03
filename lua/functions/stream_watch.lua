--- stream_watch: these jobs' streams are being read. For jobs that are to stop when nobody reads them.
-- keys   1  root of the queue
-- args   1  map {ids: [str]}
-- reply  how many of them care
-- error  ARG
-- cost   O(ids); at most 256
local arg = require('lib.arg')
local layout = require('lib.layout')
local num = require('lib.num')

local MAX = 256
local AGAIN_MS = 5000 -- readers tell again within four seconds: until then nobody can say that they have gone

local function stream_watch(keys, args)
  local root, now, count = keys[1], num.now(), 0
  for _, id in ipairs(arg.list(arg.map(args), 'ids', MAX)) do
    local key = layout.job(root, id)
    if redis.call('HEXISTS', key, 'unread_ms') == 1 then
      redis.call('HSET', key, 'read_at', now + AGAIN_MS)
      count = count + 1
    end
  end
  return count
end

return { run = stream_watch, flags = { 'allow-oom' } }
