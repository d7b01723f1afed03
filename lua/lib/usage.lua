--- usage: the ledger of one job and the queue's buckets of minutes and hours. Tokens are integers, money integer
-- nano-units.
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

local usage = {}

local MINUTE_MS = 60000
local HOUR_MS = 3600000
local KEEP_MS = 90000000 -- 25 hours
local KEEP_HOURS_MS = 2764800000 -- 32 days
local MAX_MODELS = 200

--- The name under which a model is counted: its own for the first 200 of a queue, then "other".
local function counted_as(root, model)
  local key = layout.models(root)
  if redis.call('SISMEMBER', key, model) == 0 then
    if redis.call('SCARD', key) >= MAX_MODELS then
      return 'other'
    end
    redis.call('SADD', key, model)
  end
  redis.call('PEXPIRE', key, KEEP_MS)
  return model
end

--- Add a report to the sums of a hash, all of them and `more` in one write: a call is booked whole or not at all.
local function add_up(key, report, model, more)
  local names, amounts = { 'calls' .. model }, { 1 }
  for _, kind in ipairs({ 'tokens', 'costs' }) do
    for name, amount in pairs(report[kind]) do
      names[#names + 1] = kind .. (model == '' and ':' or model) .. name
      amounts[#amounts + 1] = amount
    end
  end
  local sums = redis.call('HMGET', key, unpack(names))
  for i, name in ipairs(names) do
    more[#more + 1] = name
    more[#more + 1] = num.text(num.of(sums[i], 0) + amounts[i])
  end
  redis.call('HSET', key, unpack(more))
end

--- The buckets of an instant: {key, how long it is kept}.
local function buckets_of(root, now)
  return {
    { layout.minute(root, math.floor(now / MINUTE_MS)), KEEP_MS },
    { layout.hour(root, math.floor(now / HOUR_MS)), KEEP_HOURS_MS },
  }
end

--- Note, before its first field, that the job owns a ledger.
function usage.own(root, id, record)
  if not job.has_satellite(record.satellites, 'usage') then
    record.satellites = job.with_satellite(record.satellites, 'usage')
    redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  end
end

--- Book one report {call, model, tokens, costs, entry}; answers false if this call was booked before. The buckets
-- come after the job: a break may leave their sums short, never too high.
function usage.book(root, id, record, report, now)
  local key, buckets = layout.satellite(root, id, 'usage'), buckets_of(root, now)
  if redis.call('HEXISTS', key, 'call:' .. report.call) == 1 then
    for _, bucket in ipairs(buckets) do
      redis.call('PEXPIRE', bucket[1], bucket[2])
    end
    return false
  end
  usage.own(root, id, record)
  local model = ':' .. counted_as(root, report.model) .. '\n'
  add_up(key, report, '', { 'call:' .. report.call, report.entry })
  for _, bucket in ipairs(buckets) do
    add_up(bucket[1], report, model, {})
    redis.call('PEXPIRE', bucket[1], bucket[2])
  end
  return true
end

--- Add what a child has used to its parent's sums of the flow: {"tokens:CATEGORY" | "costs:NAME" = int}. The field
-- "flow_of" names the child that was added last: it is not added again by the repeat of a call that broke off.
function usage.add_flow(root, id, record, child, amounts)
  if next(amounts) == nil then
    return
  end
  usage.own(root, id, record)
  local key, names, added = layout.satellite(root, id, 'usage'), { 'flow_of' }, { 'flow_of', child }
  for name in pairs(amounts) do
    names[#names + 1] = 'flow_' .. name
  end
  local sums = redis.call('HMGET', key, unpack(names))
  if sums[1] == child then
    return
  end
  for i = 2, #names do
    added[#added + 1] = names[i]
    added[#added + 1] = num.text(num.of(sums[i], 0) + amounts[string.sub(names[i], 6)])
  end
  redis.call('HSET', key, unpack(added))
end

return usage
