--- ledger_conf: what callers say a limiter is: JSON {axes = [{axis, limit, period_ms, burst, count?, side?, default?,
-- weights?}], concurrency?, adaptive?, max_pause_ms?,
-- breaker? = [calls, percent, ms]}. A text is read and checked once.
local arg = require('lib.arg')
local ledger = require('lib.ledger')
local memory = require('lib.ledger_memory')
local num = require('lib.num')
local reply = require('lib.reply')

local conf = {}

local MAX_AXES = 8
local MAX_PAUSE_MS = 3600000

local function check_axis(axis)
  arg.text(axis, 'axis')
  arg.int(axis, 'limit', 1, 1e12)
  arg.int(axis, 'period_ms', 1, ledger.DAY_MS)
  arg.int(axis, 'burst', 1, 1e12)
  axis.default = arg.int(axis, 'default', 0, 1e6, 1000)
  axis.weights = ledger.amounts(axis, 'weights', 1e6)
  conf.check_size(math.max(axis.limit, axis.burst), axis)
end

local function parse(text)
  local is_json, found = pcall(cjson.decode, text)
  if not is_json or type(found) ~= 'table' then
    reply.fail('ARG', 'limiters not JSON')
  end
  found.axes = arg.list(found, 'axes', MAX_AXES)
  for _, axis in ipairs(found.axes) do
    check_axis(axis)
  end
  found.concurrency = found.concurrency and arg.int(found, 'concurrency', 1, 1e6)
  found.max_pause_ms = arg.int(found, 'max_pause_ms', 1, ledger.DAY_MS, MAX_PAUSE_MS)
  for i = 1, 3 do
    arg.int(found.breaker or { 1, 1, 1 }, i, 1, 1e9)
  end
  return found
end

--- An amount must stay exact when it is multiplied by its period and added up.
function conf.check_size(amount, axis)
  if amount * axis.period_ms >= num.MAX / 4 then
    reply.fail('ARG', 'limiters too large for exact figures')
  end
end

--- The configuration of a text; not to be changed.
function conf.of(text)
  return memory.parsed(text, parse)
end

return conf
