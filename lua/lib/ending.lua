--- ending: a job's last move, with everything that goes with it: retention, the stream's end, errors, news.
local change = require('lib.change')
local chunk = require('lib.chunk')
local job = require('lib.job')
local keep = require('lib.keep')
local layout = require('lib.layout')
local notice = require('lib.notice')
local num = require('lib.num')
local outbox = require('lib.outbox')
local removal = require('lib.removal')

local ending = {}

local MAX_ERRORS = 20

-- What an ending reads of its job, `state` first.
ending.FIELDS = {
  'state', 'token', 'run', 'attempt', 'place', 'stalled', 'lost', 'cancel_requested', 'keep_completed', 'keep_failed',
  'chunk', 'satellites', 'stream_bytes', 'commit', 'last_chunk', 'parent', 'waits', 'pending', 'counted',
  'child_failed', 'started_run',
}

-- What the ending of a plain job needs: one that completed and owns nothing beside its hash.
ending.SHORT = { 'state', 'token', 'run', 'cancel_requested', 'keep_completed', 'satellites', 'parent' }

function ending.begin(root, now, defaults)
  local tx = change.begin(root)
  tx.now = now
  tx.defaults = defaults
  tx.buried = {}
  tx.trim = {}
  tx.ends, tx.errors = {}, {}
  tx.expiring, tx.outbox = {}, {}
  return tx
end

local function put(list, first, second)
  list[#list + 1], list[#list + 2] = first, second
end

--- Stage a job's last move. `from` is its index, `fields` what its hash gains.
function ending.terminal(tx, id, record, from, state, fields)
  put(fields, 'finished_at', tx.now)
  local count, age = keep.rule(record, tx.defaults, state)
  if count == 0 then
    put(fields, 'state', state)
    put(fields, 'removed', 1)
    change.move(tx, id, from, 'none', 0, fields)
    tx.buried[#tx.buried + 1] = { id, record }
  else
    tx.trim[state] = math.min(count or keep.DEFAULT_COUNT, tx.trim[state] or keep.DEFAULT_COUNT)
    if age then
      put(tx.expiring, tx.now + age, id)
      put(fields, 'remove_at', tx.now + age)
    end
    change.move(tx, id, from, state, tx.now, fields)
  end
  if job.has_satellite(record.satellites, 'chunks') then
    tx.ends[#tx.ends + 1] = { id, record, state }
  end
  notice.stage(tx, id, record, state, fields)
  change.note(tx, state, id, true)
end

--- Stage a job's last error and, unless it ends in `state` and is removed at once, an entry of its error list.
function ending.error(tx, id, record, fields, text, state)
  if text and state and keep.rule(record, tx.defaults, state) == 0 then
    fields[#fields + 1] = 'error'
    fields[#fields + 1] = text
  elseif text then
    local is_first = not job.has_satellite(record.satellites, 'errors')
    record.satellites = job.with_satellite(record.satellites, 'errors')
    tx.errors[#tx.errors + 1] = { id, text, is_first and record.satellites }
    fields[#fields + 1] = 'error'
    fields[#fields + 1] = text
  end
end

--- Finish a move out of `index` that was broken off: its job is elsewhere, or is to be removed.
function ending.sweep(root, index, id)
  local record = job.read(root, id, { 'state', 'removed', 'satellites' })
  if record and record.removed then
    removal.bury(root, id, record.satellites)
  end
  redis.call('ZREM', layout.index(root, index), id)
end

--- Write everything that was staged. With the fields a job has ended, and a repeated turn won't end it again: what
-- must not be missed goes before them, and what is left to do afterwards is done by whoever finds the job in the index
-- that it leaves last.
function ending.commit(tx)
  local root = tx.root
  for _, last in ipairs(tx.ends) do
    chunk.finish(root, last[1], last[2], last[3], num.of(last[2].run, 0))
  end
  outbox.put(root, tx.outbox)
  for _, entry in ipairs(tx.errors) do
    local key = layout.satellite(root, entry[1], 'errors')
    if entry[3] then
      redis.call('HSET', layout.job(root, entry[1]), 'satellites', entry[3])
    end
    if redis.call('LINDEX', key, -1) ~= entry[2] then -- an error names its attempt: the same one again is a repeat
      redis.call('RPUSH', key, entry[2])
      redis.call('LTRIM', key, -MAX_ERRORS, -1)
    end
  end
  if #tx.expiring > 0 then
    redis.call('ZADD', layout.expiring(root), unpack(tx.expiring))
  end
  change.enter(tx)
  for _, entry in ipairs(tx.buried) do
    removal.bury(root, entry[1], entry[2].satellites)
  end
  change.leave(tx)
  for state, count in pairs(tx.trim) do
    keep.trim_count(root, state, count, tx.now)
  end
end

return ending
