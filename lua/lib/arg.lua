--- arg: the one packed map of a call, its fields checked before anything is written.
local num = require('lib.num')
local reply = require('lib.reply')

local arg = {}

--- Unpack the first argument of a call.
function arg.map(args)
  local map = args[1] and cmsgpack.unpack(args[1])
  if type(map) ~= 'table' then
    reply.fail('ARG', 'arguments not a packed map')
  end
  return map
end

--- A required text.
function arg.text(map, field)
  local value = map[field]
  if type(value) ~= 'string' then
    reply.fail('ARG', field .. ' not a text')
  end
  return value
end

local function is_int(value)
  return type(value) == 'number' and value == math.floor(value) and value > -num.MAX and value < num.MAX
end

--- An integer within [low, high]; `default` where it is absent (none given: it is required).
function arg.int(map, field, low, high, default)
  local value = map[field]
  if value == nil and default ~= nil then
    return default
  end
  if not is_int(value) or value < low or value > high then
    reply.fail('ARG', field .. ' not an integer in range')
  end
  return value
end

--- A list; an empty one where it is absent.
function arg.list(map, field, limit)
  local value = map[field]
  if value == nil then
    return {}
  end
  if type(value) ~= 'table' or #value > limit then
    reply.fail('ARG', field .. ' not a list of at most ' .. limit)
  end
  return value
end

--- A map of non-negative integers, for tokens and money.
function arg.amounts(map, field)
  local value = map[field] or {}
  if type(value) ~= 'table' then
    reply.fail('ARG', field .. ' not a map')
  end
  for name, amount in pairs(value) do
    if type(name) ~= 'string' or not is_int(amount) or amount < 0 then
      reply.fail('ARG', field .. ' holds something else than a non-negative integer')
    end
  end
  return value
end

return arg
