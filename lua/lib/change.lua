--- change: the one place that changes a job's `state` and its index.
-- Changes are staged on a transaction (a plain table) and written by `commit`, batched over all its jobs:
-- staging may refuse, writing may not. The order of the writes is what a break leaves behind: into the new index,
-- then the fields, and out of the old index last. So a job is never in no index, and whoever looks at the old
-- index (reclaim, claim, upkeep) sees by its state what was meant.
local event = require('lib.event')
local job = require('lib.job')
local layout = require('lib.layout')
local news = require('lib.news')
local reply = require('lib.reply')
local wake = require('lib.wake')

local change = {}

local WAITS = { waiting = true, suspects = true, delayed = true, failed = true, cancelled = true, none = true }
local RUN = {
  waiting = true, suspects = true, delayed = true, suspended = true, waiting_children = true,
  completed = true, failed = true, cancelled = true, none = true,
}
local LEGAL = {
  new = { waiting = true, delayed = true, waiting_children = true },
  waiting = { active = true, delayed = true, failed = true, cancelled = true, none = true },
  suspects = { active = true, delayed = true, failed = true, cancelled = true, none = true },
  delayed = WAITS,
  active = RUN,
  suspended = WAITS,
  waiting_children = WAITS,
  completed = { waiting = true, none = true },
  failed = { waiting = true, none = true },
  cancelled = { waiting = true, none = true },
}

function change.begin(root)
  return { root = root, remove = {}, add = {}, fields = {}, events = {}, news = {}, wake = false }
end

--- Stage field writes of one job: a flat list {name, value, ...}.
function change.set(tx, id, fields)
  tx.fields[#tx.fields + 1] = { layout.job(tx.root, id), fields }
end

--- Stage a move between indexes, with the state and further fields. `to` "none": the job leaves the queue.
function change.move(tx, id, from, to, score, fields)
  if not (LEGAL[from] and LEGAL[from][to]) then
    reply.state(id, from, 'movable to ' .. to)
  end
  if from ~= 'new' then
    local out = tx.remove[from] or {}
    tx.remove[from] = out
    out[#out + 1] = id
  end
  if to ~= 'none' then
    local into = tx.add[to] or {}
    tx.add[to] = into
    into[#into + 1] = score
    into[#into + 1] = id
    fields[#fields + 1] = 'state'
    fields[#fields + 1] = job.state_of(to)
  end
  if to == 'waiting' or to == 'suspects' or to == 'delayed' then
    tx.wake = true
  end
  change.set(tx, id, fields)
end

--- Stage an event, and news for the readers of the job when `tell` is true.
function change.note(tx, name, id, tell)
  tx.events[#tx.events + 1] = name
  tx.events[#tx.events + 1] = id
  if tell then
    tx.news[#tx.news + 1] = id
  end
end

--- Write the new indexes and the fields: from here on the jobs are what they are to be.
function change.enter(tx)
  for index, pairs_ in pairs(tx.add) do
    redis.call('ZADD', layout.index(tx.root, index), unpack(pairs_))
  end
  for _, write in ipairs(tx.fields) do
    redis.call('HSET', write[1], unpack(write[2]))
  end
end

--- Write the rest: out of the old indexes, and tell who waits.
function change.leave(tx)
  for index, ids in pairs(tx.remove) do
    redis.call('ZREM', layout.index(tx.root, index), unpack(ids))
  end
  event.append(tx.root, tx.events)
  news.publish(tx.root, tx.news)
  if tx.wake then
    wake.push(tx.root)
  end
end

--- Is this the repeat of the call that moved the job (it left its nonce)? Then finish that move out of `from`.
function change.was_moved(root, id, record, nonce, from)
  if nonce == '' or record.moved_by ~= nonce then
    return false
  end
  for _, index in ipairs(from) do
    redis.call('ZREM', layout.index(root, index), id)
  end
  return true
end

--- Write all that was staged.
function change.commit(tx)
  change.enter(tx)
  change.leave(tx)
end

return change
