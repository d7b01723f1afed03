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

--- Is it a number that is exact on the wire?
function arg.is_int(value)
  return type(value) == 'number' and value == math.floor(value) and value > -num.MAX and value < num.MAX
end

--- Is it one that is not negative?
function arg.is_count(value)
  return arg.is_int(value) and value >= 0
end

--- An integer within [low, high]; `default` where it is absent (none given: it is required).
function arg.int(map, field, low, high, default)
  local value = map[field]
  if value == nil and default ~= nil then
    return default
  end
  if not arg.is_int(value) or value < low or value > high then
    reply.fail('ARG', field .. ' not an integer in range')
  end
  return value
end

--- A text, or nil where it is absent.
function arg.maybe_text(map, field)
  local value = map[field]
  if value ~= nil and type(value) ~= 'string' then
    reply.fail('ARG', field .. ' not a text')
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

--- A list of texts.
function arg.texts(map, field, limit)
  local list = arg.list(map, field, limit)
  for _, value in ipairs(list) do
    if type(value) ~= 'string' then
      reply.fail('ARG', field .. ' not a list of texts')
    end
  end
  return list
end

--- Is this a list of chunks: [type, content, fields?]?
function arg.is_chunks(list)
  if type(list) ~= 'table' then
    return false
  end
  for _, piece in ipairs(list) do
    if type(piece) ~= 'table' or type(piece[1]) ~= 'string' or type(piece[2]) ~= 'string'
      or not (piece[3] == nil or type(piece[3]) == 'string') then
      return false
    end
  end
  return true
end

--- A list of lines [id, token, ago_ms?] about runs.
function arg.runs(map, field, limit, has_ago)
  local lines = arg.list(map, field, limit)
  for _, line in ipairs(lines) do
    if type(line) ~= 'table' or type(line[1]) ~= 'string' or type(line[2]) ~= 'string'
      or has_ago and not arg.is_int(line[3]) then
      reply.fail('ARG', field .. ' not a list of runs')
    end
  end
  return lines
end

--- A map of non-negative integers, for tokens and money.
function arg.amounts(map, field)
  local value = map[field] or {}
  if type(value) ~= 'table' then
    reply.fail('ARG', field .. ' not a map')
  end
  for name, amount in pairs(value) do
    if type(name) ~= 'string' or not arg.is_int(amount) or amount < 0 then
      reply.fail('ARG', field .. ' holds something else than a non-negative integer')
    end
  end
  return value
end

return arg
