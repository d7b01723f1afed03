--- job_wait: begin, or look at, a running job's wait for a signal or for a time. Fenced by its token.
-- keys   1  root of the queue
-- args   1  map {id, token, key: "signal:NAME#N" | "suspend:#N" | "sleep:#N", name?: str ("*": any signal),
--           timeout_ms?: int, reason?: str}; a wait without a name is a sleep
-- reply  [entry, ms left]: the entry as JSON, or "" while it goes on; ms left of the deadline, -1: none
-- error  ARG GONE STALE STATE (too many steps)
-- cost   O(mailbox)
local arg = require('lib.arg')
local journal = require('lib.journal')
local lease = require('lib.lease')
local num = require('lib.num')
local reply = require('lib.reply')
local waits = require('lib.waits')

local FIELDS = { 'state', 'token', 'run', 'satellites', 'last_chunk', 'waits' }
local CENTURY_MS = 3153600000000

--- The deadline of a wait: that of the first call, whatever later runs say.
local function deadline(root, id, record, key, timeout, now)
  local first = journal.begin(root, id, record, key, timeout and num.text(now + timeout) or '')
  return first ~= '' and tonumber(first) or nil
end

local function over(root, id, record, map, until_)
  local found = journal.get(root, id, map.key)
  if found then
    return found
  end
  local late = until_ and until_ <= num.now()
  if map.name then
    return journal.consume(root, id, record, map.key, map.name, until_)
      or late and journal.put(root, id, record, map.key, '{"timeout":true}')
  end
  return late and journal.put(root, id, record, map.key, '{"slept":true}')
end

local function job_wait(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local id, token, key = arg.text(map, 'id'), arg.text(map, 'token'), arg.text(map, 'key')
  arg.maybe_text(map, 'name')
  arg.maybe_text(map, 'reason')
  local timeout = map.timeout_ms and arg.int(map, 'timeout_ms', 0, CENTURY_MS)
  local record = lease.hold(root, id, token, FIELDS)
  local found = journal.get(root, id, key)
  if found then
    return { found, 0 }
  end
  if journal.is_full(root, id, key) then
    reply.state(id, record.state, 'of fewer than ' .. journal.MAX_STEPS .. ' steps')
  end
  local until_ = deadline(root, id, record, key, timeout, now)
  found = over(root, id, record, map, until_)
  if found then
    return { found, 0 }
  end
  waits.note(root, id, record, { key = key, name = map.name, until_ = until_, reason = map.reason })
  return { '', until_ and until_ - now or -1 }
end

return { run = job_wait, flags = { 'allow-oom' } }
