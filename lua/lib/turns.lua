--- turns: the memory that makes a turn safe to repeat. `turn:{worker}` keeps the answers of the last 8 turns.
local layout = require('lib.layout')
local num = require('lib.num')
local reply = require('lib.reply')

local turns = {}

local KEPT = 8
local KEEP_MS = 600000

--- The stored answer {codes, token, [id...]} of a turn, or nil. A turn older than the memory is refused.
function turns.find(root, worker, number)
  local found = redis.call('HMGET', layout.turn(root, worker), num.text(number), 'highest')
  if found[1] then
    redis.call('PEXPIRE', layout.turn(root, worker), KEEP_MS)
    return cmsgpack.unpack(found[1])
  end
  if number <= num.of(found[2], 0) - KEPT then
    reply.fail('ARG', 'turn older than the last ' .. KEPT)
  end
  return nil, num.of(found[2], 0)
end

function turns.store(root, worker, number, highest, codes, token, claims)
  local ids = {}
  for i, line in ipairs(claims) do
    ids[i] = line[1]
  end
  local key = layout.turn(root, worker)
  redis.call('HSET', key, num.text(number), cmsgpack.pack({ codes, token, ids }),
    'highest', math.max(number, highest))
  if number > KEPT then
    redis.call('HDEL', key, num.text(number - KEPT))
  end
  redis.call('PEXPIRE', key, KEEP_MS)
end

return turns
