--- expiry: what time ends: a ttl that ran out before the first start, and the age of retention of ended jobs.
local ending = require('lib.ending')
local job = require('lib.job')
local keep = require('lib.keep')
local layout = require('lib.layout')
local reclaim = require('lib.reclaim')

local expiry = {}

local BATCH = 100

--- Sort passed entries of `expiring`: jobs whose ttl ran out are staged to fail; ended ones are listed by their state.
local function sort(tx, ids)
  local ended, others = {}, {}
  for _, id in ipairs(ids) do
    local record = job.read(tx.root, id, reclaim.FIELDS)
    local state = record and record.state
    if job.TERMINAL[state or ''] then
      ended[state] = ended[state] or {}
      table.insert(ended[state], id)
    else
      others[#others + 1] = id
      if record and not record.started_at and (state == 'waiting' or state == 'delayed') then
        ending.terminal(tx, id, record, job.index_of(record), 'failed', { 'reason', 'expired' })
      end
    end
  end
  return ended, others
end

--- Handle the entries of `expiring` that have passed. Those of ended jobs go last: after a break they are found again.
local function expire(root, now, defaults)
  local key = layout.expiring(root)
  local ids = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, BATCH)
  if #ids == 0 then
    return
  end
  local tx = ending.begin(root, now, defaults)
  local ended, others = sort(tx, ids)
  if #others > 0 then
    redis.call('ZREM', key, unpack(others))
  end
  ending.commit(tx)
  for state, gone in pairs(ended) do
    keep.remove(root, gone, now, state)
    redis.call('ZREM', layout.index(root, state), unpack(gone))
    redis.call('ZREM', key, unpack(gone))
  end
end

--- One round: at most a batch of each kind.
function expiry.run(root, now, defaults)
  expire(root, now, defaults)
  for state, age in pairs(keep.DEFAULT_AGE_MS) do
    keep.trim_age(root, state, age, now)
  end
end

return expiry
