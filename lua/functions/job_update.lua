--- job_update: what a running job says about itself: progress, log lines, new data. Fenced by its token.
-- keys   1  root of the queue
-- args   1  map {id, token, n: int, progress?: json str, log?: [str], data?: json str, hops?: json str, ledger?: str}
--           `n` counts the updates of the run: one that was applied is not applied again
--           `ledger`: its run is about to reserve there, so a lost lease has to be told there; counted or not
-- reply  1 applied, 0 applied before
-- error  ARG GONE STALE
-- cost   O(log lines)
local arg = require('lib.arg')
local event = require('lib.event')
local job = require('lib.job')
local layout = require('lib.layout')
local lease = require('lib.lease')
local num = require('lib.num')

local MAX_LOG = 1000
local TEXTS = { 'progress', 'data', 'hops' }
local FIELDS = { 'state', 'token', 'run', 'satellites', 'update' }

local function write_log(root, id, record, lines)
  if #lines > 0 then
    local key = layout.satellite(root, id, 'log')
    if not job.has_satellite(record.satellites, 'log') then
      redis.call('HSET', layout.job(root, id), 'satellites', job.with_satellite(record.satellites, 'log'))
    end
    redis.call('RPUSH', key, unpack(lines))
    redis.call('LTRIM', key, -MAX_LOG, -1)
  end
end

local function job_update(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, token = arg.text(map, 'id'), arg.text(map, 'token')
  local n, lines = arg.int(map, 'n', 1, num.MAX), arg.texts(map, 'log', MAX_LOG)
  for _, name in ipairs(TEXTS) do
    arg.maybe_text(map, name)
  end
  local ledger, record = arg.maybe_text(map, 'ledger'), lease.hold(root, id, token, FIELDS)
  if ledger then
    redis.call('HSET', layout.meta(root), 'ledger:' .. ledger, 1)
    redis.call('HSET', layout.job(root, id), 'ledger', ledger)
  end
  local last = tonumber(string.match(record.update or '', '^' .. record.run .. ':(%d+)$') or 0)
  if n <= last then
    return 0
  end
  local fields = { 'update', record.run .. ':' .. num.text(n), 'started_run', record.run }
  for _, name in ipairs(TEXTS) do
    if map[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = map[name]
    end
  end
  write_log(root, id, record, lines)
  redis.call('HSET', layout.job(root, id), unpack(fields))
  event.append(root, map.progress and { 'progress', id } or {})
  return 1
end

return { run = job_update, flags = { 'allow-oom' } }
