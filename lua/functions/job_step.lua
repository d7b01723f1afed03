--- job_step: remember a step of a running job. The first writer of an entry wins. Fenced by its token.
-- keys   1  root of the queue
-- args   1  map {id, token, key: "step:NAME#N", entry?: json str, started?: json str}
--           `started` notes that a paid step has begun; `entry` that it is done, which is a commit point of the stream
-- reply  the entry (or the note) that stands
-- error  ARG GONE STALE STATE (too many steps)
-- cost   O(1)
local arg = require('lib.arg')
local journal = require('lib.journal')
local layout = require('lib.layout')
local lease = require('lib.lease')
local reply = require('lib.reply')

local FIELDS = { 'state', 'token', 'run', 'satellites', 'last_chunk' }

local function check(map)
  local text = map.started or map.entry
  if type(text) ~= 'string' or #text > journal.MAX_BYTES then
    reply.fail('ARG', 'entry not a text of at most ' .. journal.MAX_BYTES .. ' bytes')
  end
end

local function job_step(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, token, key = arg.text(map, 'id'), arg.text(map, 'token'), arg.text(map, 'key')
  check(map)
  local record = lease.hold(root, id, token, FIELDS)
  if journal.is_full(root, id, key) then
    reply.state(id, record.state, 'of fewer than ' .. journal.MAX_STEPS .. ' steps')
  end
  if map.started then
    return journal.begin(root, id, record, key, map.started)
  end
  local fields = { 'started_run', record.run }
  if record.last_chunk then
    fields[3], fields[4] = 'commit', record.last_chunk
  end
  redis.call('HSET', layout.job(root, id), unpack(fields))
  return journal.put(root, id, record, key, map.entry)
end

return { run = job_step, flags = { 'allow-oom' } }
