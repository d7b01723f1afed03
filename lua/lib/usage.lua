--- usage: the ledger of one job and the queue's minute buckets. Tokens are integers, money integer nano-units.
local job = require('lib.job')
local layout = require('lib.layout')

local usage = {}

local MINUTE_MS = 60000
local KEEP_MS = 90000000 -- 25 hours
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

local function add_all(key, prefix, amounts)
  for name, amount in pairs(amounts) do
    redis.call('HINCRBY', key, prefix .. name, amount)
  end
end

local function add_to_minute(root, report, now)
  local model = counted_as(root, report.model)
  local key = layout.minute(root, math.floor(now / MINUTE_MS))
  add_all(key, 'tokens:' .. model .. '\n', report.tokens)
  add_all(key, 'costs:' .. model .. '\n', report.costs)
  redis.call('HINCRBY', key, 'calls:' .. model .. '\n', 1)
  redis.call('PEXPIRE', key, KEEP_MS)
end

--- Book one report {call, model, tokens, costs, entry}; answers false if this call was booked before.
function usage.book(root, id, record, report, now)
  local key = layout.satellite(root, id, 'usage')
  if redis.call('HSETNX', key, 'call:' .. report.call, report.entry) == 0 then
    return false
  end
  add_all(key, 'tokens:', report.tokens)
  add_all(key, 'costs:', report.costs)
  redis.call('HINCRBY', key, 'calls', 1)
  redis.call('HSET', layout.job(root, id), 'satellites', job.with_satellite(record.satellites, 'usage'))
  add_to_minute(root, report, now)
  return true
end

return usage
