--- removal: how a job is removed with everything it owns, and what is remembered of it.
local layout = require('lib.layout')

local removal = {}

local GRACE_MS = 60000 -- how long the stream and the ending of a removed job stay readable
local REMOVED_MS = 120000
local MINUTE_MS = 60000

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
function removal.bury(root, id, satellites)
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
function removal.remove(root, ids, now, state, nonce)
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
function removal.was_removed(root, words, now)
  local minute = math.floor(now / MINUTE_MS)
  return redis.call('SISMEMBER', layout.removed(root, minute), words) == 1
    or redis.call('SISMEMBER', layout.removed(root, minute - 1), words) == 1
end

return removal
