--- job_unpark: room has come up in a budget or limiter: the jobs that were parked for it go back to the line.
-- keys   1  root of the queue
-- args   1  map {on: str (ledger and name), generation: int, ids: [str]}
-- reply  [how many went back, ids of those that have ended or are gone: they wait for nothing…]
-- error  ARG
-- cost   O(ids x log n); at most 256
local arg = require('lib.arg')
local change = require('lib.change')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

local MAX = 256
local KEEP_S = 86400 -- more than a run takes from its refusal to its park
local PARKED = { budget = true, throttled = true }

local function job_unpark(keys, args)
  local root, map = keys[1], arg.map(args)
  local on, generation = arg.text(map, 'on'), arg.int(map, 'generation', 0, num.MAX)
  local ids = arg.texts(map, 'ids', MAX)
  local key = layout.generation(root, on)
  -- A park that is on its way and knows an older generation goes straight to waiting (see lib/outcome.lua).
  if num.of(redis.call('GET', key), -1) < generation then
    redis.call('SET', key, generation, 'EX', KEEP_S)
  end
  local tx, reply = change.begin(root), { 0 }
  for _, id in ipairs(ids) do
    local record = job.read(root, id, { 'state', 'why', 'place', 'stalled', 'lost', 'removed' })
    if record and record.state == 'delayed' and PARKED[record.why] then
      change.move(tx, id, 'delayed', job.waiting_index(record), record.place, {})
      change.note(tx, 'waiting', id)
      reply[1] = reply[1] + 1
    elseif not record or record.removed or job.TERMINAL[record.state] then
      reply[#reply + 1] = id
    end
  end
  change.commit(tx)
  return reply
end

return { run = job_unpark, flags = { 'allow-oom' } }
