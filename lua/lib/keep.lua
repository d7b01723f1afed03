--- keep: what stays of finished jobs, and how a job is removed with everything it owns.
-- A `keep_*` field is "count:age_ms", either part may be empty; "0:" removes at once.
local layout = require('lib.layout')

local keep = {}

local GRACE_MS = 60000 -- how long the stream and the ending of a removed job stay readable
local REMOVED_MS = 120000
local MINUTE_MS = 60000
local BATCH = 100

keep.DEFAULT_COUNT = 10000
keep.DAY_MS = 86400000
keep.DEFAULT_AGE_MS = { completed = 86400000, failed = 604800000, cancelled = 604800000 }

--- Parse a keep text into count and age in ms (nil where unlimited by the job).
function keep.parse(text)
  if not text then
    return nil, nil
  end
  local count, age = string.match(text, '^(%d*):(%d*)$')
  return tonumber(count or ''), tonumber(age or '')
end

local function drop_satellites(root, id, satellites, except)
  local doomed = {}
  for name in string.gmatch(satellites or '', '[^,]+') do
    if name == 'chunks' then
      redis.call('PEXPIRE', layout.satellite(root, id, name), GRACE_MS)
    elseif name ~= except then
      doomed[#doomed + 1] = layout.satellite(root, id, name)
    end
  end
  if #doomed > 0 then
    redis.call('UNLINK', unpack(doomed))
  end
end

--- Turn a job that has just ended into a tombstone: its ending stays readable for the grace time.
function keep.bury(root, id, satellites)
  local key = layout.job(root, id)
  redis.call('HSET', key, 'removed', 1)
  redis.call('HDEL', key, 'data', 'options', 'place', 'satellites')
  redis.call('PEXPIRE', key, GRACE_MS)
  drop_satellites(root, id, satellites)
end

--- Remove jobs that are in no index any more (at most BATCH ids), now.
function keep.remove(root, ids, now)
  if #ids == 0 then
    return
  end
  local keys = {}
  for i, id in ipairs(ids) do
    keys[i] = layout.job(root, id)
    drop_satellites(root, id, redis.call('HGET', keys[i], 'satellites'))
  end
  redis.call('UNLINK', unpack(keys))
  local removed = layout.removed(root, math.floor(now / MINUTE_MS))
  redis.call('SADD', removed, unpack(ids))
  redis.call('PEXPIRE', removed, REMOVED_MS)
end

--- Was this id removed in this or the last minute?
function keep.was_removed(root, id, now)
  local minute = math.floor(now / MINUTE_MS)
  return redis.call('SISMEMBER', layout.removed(root, minute), id) == 1
    or redis.call('SISMEMBER', layout.removed(root, minute - 1), id) == 1
end

--- Trim one finished index to its newest `count`; answers how many were removed.
function keep.trim_count(root, state, count, now)
  local index = layout.index(root, state)
  local over = redis.call('ZCARD', index) - count
  if over <= 0 then
    return 0
  end
  local popped = redis.call('ZPOPMIN', index, math.min(over, BATCH))
  local ids = {}
  for i = 1, #popped, 2 do
    ids[#ids + 1] = popped[i]
  end
  keep.remove(root, ids, now)
  return #ids
end

--- Remove what ended before now - age; answers how many.
function keep.trim_age(root, state, age, now)
  local index = layout.index(root, state)
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now - age, 'LIMIT', 0, BATCH)
  if #ids > 0 then
    redis.call('ZREM', index, unpack(ids))
    keep.remove(root, ids, now)
  end
  return #ids
end

--- Fields that `ending` reads to keep or remove a job.
keep.FIELDS = { 'keep_completed', 'keep_failed' }

--- What the job itself, else the worker's default, says about its ending in `state`.
function keep.rule(record, defaults, state)
  local name = state == 'completed' and 'keep_completed' or 'keep_failed'
  return keep.parse(record[name] or defaults[name])
end

return keep
