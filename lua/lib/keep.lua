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

local parsed, parsed_size = {}, 0

local function parse(text)
  local count, age = string.match(text, '^(%d*):(%d*)$')
  return { tonumber(count or ''), tonumber(age or '') }
end

--- Parse a keep text into count and age in ms (nil where unlimited by the job). There are few texts and many jobs.
function keep.parse(text)
  if not text then
    return nil, nil
  end
  local rule = parsed[text]
  if not rule then
    parsed_size = parsed_size + 1
    if parsed_size > 1000 then
      parsed, parsed_size = {}, 1
    end
    rule = { pair = parse(text) }
    parsed[text] = rule
  end
  return rule.pair[1], rule.pair[2]
end

local function drop_satellites(root, id, satellites)
  local doomed = {}
  for name in string.gmatch(satellites or '', '[^,]+') do
    if name == 'chunks' then
      redis.call('PEXPIRE', layout.satellite(root, id, name), GRACE_MS)
    else
      doomed[#doomed + 1] = layout.satellite(root, id, name)
    end
  end
  if #doomed > 0 then
    redis.call('UNLINK', unpack(doomed))
  end
end

--- Turn a job that has just ended (and says `removed`) into a tombstone: its ending stays readable for a while.
function keep.bury(root, id, satellites)
  local key = layout.job(root, id)
  drop_satellites(root, id, satellites)
  redis.call('PEXPIRE', key, GRACE_MS)
  redis.call('HDEL', key, 'data', 'options', 'place', 'satellites')
end

--- Note what is being removed, for repeated calls to find: "id" of a job that was added under a made-up id, "id nonce"
-- of one under an id of the user's own (which may be added anew), "id nonce" of the removal's call.
local function note_removed(root, words, now)
  local removed = layout.removed(root, math.floor(now / MINUTE_MS))
  redis.call('SADD', removed, unpack(words))
  redis.call('PEXPIRE', removed, REMOVED_MS)
end

--- Remove jobs (at most BATCH ids), now; the caller takes them out of their index afterwards. With `state`, only
-- those that are in that state: an index may hold more after a break.
function keep.remove(root, ids, now, state, nonce)
  local keys, words, satellites = {}, {}, {}
  for _, id in ipairs(ids) do
    local key = layout.job(root, id)
    local found = redis.call('HMGET', key, 'state', 'satellites', 'added_by')
    if found[1] and (not state or found[1] == state) then
      keys[#keys + 1] = key
      words[#words + 1] = found[3] and id .. ' ' .. found[3] or id
      words[#words + 1] = nonce and id .. ' ' .. nonce
      satellites[#satellites + 1] = { id, found[2] }
    end
  end
  if #keys > 0 then
    note_removed(root, words, now)
    for _, owned in ipairs(satellites) do
      drop_satellites(root, owned[1], owned[2])
    end
    redis.call('UNLINK', unpack(keys))
  end
end

--- Was this id (with its nonce, see above) removed in this or the last minute?
function keep.was_removed(root, words, now)
  local minute = math.floor(now / MINUTE_MS)
  return redis.call('SISMEMBER', layout.removed(root, minute), words) == 1
    or redis.call('SISMEMBER', layout.removed(root, minute - 1), words) == 1
end

--- Trim one finished index to its newest `count`; answers how many were removed.
function keep.trim_count(root, state, count, now)
  local index = layout.index(root, state)
  local over = redis.call('ZCARD', index) - count
  if over <= 0 then
    return 0
  end
  local ids = redis.call('ZRANGE', index, 0, math.min(over, BATCH) - 1)
  keep.remove(root, ids, now, state)
  redis.call('ZREM', index, unpack(ids))
  return #ids
end

--- Remove what ended before now - age; answers how many.
function keep.trim_age(root, state, age, now)
  local index = layout.index(root, state)
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now - age, 'LIMIT', 0, BATCH)
  if #ids > 0 then
    keep.remove(root, ids, now, state)
    redis.call('ZREM', index, unpack(ids))
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
