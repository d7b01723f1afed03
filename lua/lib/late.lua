--- late: what the children of a job use when it has itself ended. It counts in the sums of its flow, and in those of
-- its own parents, which are told first: so a call that breaks off is repeated, and counts once.
local family = require('lib.family')
local layout = require('lib.layout')
local num = require('lib.num')
local outbox = require('lib.outbox')
local usage = require('lib.usage')

local late = {}

local MARK = 'flow_late:'

local function tell(root, record, name, amounts)
  if not record.parent or next(amounts) == nil then
    return
  end
  local sums = {}
  for one, amount in pairs(amounts) do
    sums[one] = num.text(amount)
  end
  outbox.put(root, { { 'kind', 'late', 'parents', record.parent, 'name', name, 'usage', cjson.encode(sums) } })
end

--- A child has ended after its parent; answers false if that was noted before.
function late.ended(root, id, record, child)
  local key = family.key(root, id)
  if redis.call('HEXISTS', key, child.key .. ':end') == 0 then
    tell(root, record, key .. ':' .. child.key, child.usage)
  end
  return family.note_end(root, id, record, child.key, child.text, child.usage)
end

--- More was used below a child whose end is noted. `name` counts once; answers false if it was counted before.
function late.used(root, id, record, name, amounts, is_over)
  local key, added = layout.satellite(root, id, 'usage'), { MARK .. name, 1 }
  if redis.call('HEXISTS', key, MARK .. name) == 1 then
    return false
  end
  if is_over then
    tell(root, record, name, amounts)
  end
  usage.own(root, id, record)
  for one, amount in pairs(amounts) do
    local sum = redis.call('HGET', key, 'flow_' .. one)
    added[#added + 1] = 'flow_' .. one
    added[#added + 1] = num.text(num.of(sum, 0) + amount)
  end
  redis.call('HSET', key, unpack(added))
  return true
end

return late
