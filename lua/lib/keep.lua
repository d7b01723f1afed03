--- keep: what stays of finished jobs.
-- A `keep_*` field is "count:age_ms", either part may be empty; "0:" removes at once.
local layout = require('lib.layout')
local removal = require('lib.removal')

local keep = {}

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

--- Trim one finished index to its newest `count`; answers how many were removed.
function keep.trim_count(root, state, count, now)
  local index = layout.index(root, state)
  local over = redis.call('ZCARD', index) - count
  if over <= 0 then
    return 0
  end
  local ids = redis.call('ZRANGE', index, 0, math.min(over, BATCH) - 1)
  removal.remove(root, ids, now, state)
  redis.call('ZREM', index, unpack(ids))
  return #ids
end

--- Remove what ended before now - age; answers how many.
function keep.trim_age(root, state, age, now)
  local index = layout.index(root, state)
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', now - age, 'LIMIT', 0, BATCH)
  if #ids > 0 then
    removal.remove(root, ids, now, state)
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
