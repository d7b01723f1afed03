--- expiry: what time ends: a ttl that ran out before the first start, and the age of retention of ended jobs.
local ending = require('lib.ending')
local job = require('lib.job')
local keep = require('lib.keep')
local layout = require('lib.layout')
local reclaim = require('lib.reclaim')
local removal = require('lib.removal')

local expiry = {}

local BATCH = 100

--- An ended job's time is over: note its index. Of a job that is gone already, a break may have left an entry in any.
local function note_ended(ended, id, state)
  for name in pairs(job.TERMINAL) do
    if name == (state or name) then
      ended[name] = ended[name] or {}
      table.insert(ended[name], id)
    end
  end
end

--- Has an ended job's age of retention passed? Else the instant was its ttl's, or is of an earlier job of its id.
local function is_aged(record, now)
  return record.remove_at and tonumber(record.remove_at) <= now
end

--- Finish an ending that was broken off on its way out of the line.
local function sweep(root, id)
  ending.sweep(root, 'waiting', id)
  ending.sweep(root, 'delayed', id)
end

--- Sort passed entries of `expiring`: jobs whose ttl ran out are staged to fail; aged ones are listed by their state.
local function sort(tx, ids)
  local ended, others = {}, {}
  for _, id in ipairs(ids) do
    local record = job.read(tx.root, id, reclaim.FIELDS)
    if not record or job.TERMINAL[record.state] and is_aged(record, tx.now) then
      note_ended(ended, id, record and record.state)
    else
      others[#others + 1] = id
      if job.TERMINAL[record.state] then
        sweep(tx.root, id)
      elseif not record.started_at and (record.state == 'waiting' or record.state == 'delayed') then
        ending.terminal(tx, id, record, job.index_of(record), 'failed', { 'reason', 'expired' })
      end
    end
  end
  return ended, others
end

--- Take ids out of `expiring`, but for those that have just got a new instant: of their retention.
local function forget(key, ids, renewed)
  local kept = {}
  for i = 2, #renewed, 2 do
    kept[renewed[i]] = true
  end
  for _, id in ipairs(ids) do
    if not kept[id] then
      redis.call('ZREM', key, id)
    end
  end
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
  ending.commit(tx)
  forget(key, others, tx.expiring)
  for state, gone in pairs(ended) do
    removal.remove(root, gone, now, state)
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
