--- ledger_waiters: jobs that wait for room in a budget, in the order they came. A woken job counts as expected until it
-- reserves, so that its room isn't given away twice.
local ledger = require('lib.ledger')

local waiters = {}

local KINDS = { 'waiters', 'waits', 'woken' }

local function member_of(waiter)
  return waiter.queue .. '\n' .. waiter.job
end

--- The queue and the job of a waiter.
function waiters.parts(member)
  return string.match(member, '^(.-)\n(.*)$')
end

--- The keys of a budget that will be gone some day must not outlive it.
function waiters.limit(root, id, life)
  for _, kind in ipairs(life and KINDS or {}) do
    redis.call('PEXPIRE', ledger.key(root, kind, id), math.ceil(life))
  end
end

--- Note that a job waits for `amounts` of a budget. One that was woken in vain keeps its place.
function waiters.add(root, now, id, waiter, amounts, life)
  local member, waits = member_of(waiter), ledger.key(root, 'waits', id)
  local known = redis.call('HGET', waits, member)
  local since = waiter.since or known and cmsgpack.unpack(known).since or now
  redis.call('HSET', waits, member, cmsgpack.pack({ since = since, amounts = amounts }))
  redis.call('ZADD', ledger.key(root, 'waiters', id), since, member)
  redis.call('ZREM', ledger.key(root, 'woken', id), member)
  redis.call('ZADD', ledger.key(root, 'parked'), 'NX', now, id)
  waiters.limit(root, id, life)
end

--- A job has got what it asked for: it waits nowhere any more.
function waiters.leave(root, ids, waiter)
  local member = member_of(waiter)
  for _, id in ipairs(ids) do
    if redis.call('HDEL', ledger.key(root, 'waits', id), member) == 1 then
      redis.call('ZREM', ledger.key(root, 'woken', id), member)
      redis.call('ZREM', ledger.key(root, 'waiters', id), member)
    end
  end
end

--- A woken job has ended meanwhile: its room is free for the next.
function waiters.forget(root, id, member)
  redis.call('ZREM', ledger.key(root, 'woken', id), member)
  redis.call('HDEL', ledger.key(root, 'waits', id), member)
end

--- What each of these waiters asked for.
function waiters.amounts(root, id, members)
  local found = {}
  if #members > 0 then
    for i, text in ipairs(redis.call('HMGET', ledger.key(root, 'waits', id), unpack(members))) do
      found[i] = text and cmsgpack.unpack(text).amounts or {}
    end
  end
  return found
end

--- The first waiters, and those on their way; who did not come in time is forgotten.
function waiters.heads(root, now, id, limit)
  local woken = ledger.key(root, 'woken', id)
  local late = redis.call('ZRANGEBYSCORE', woken, '-inf', now, 'LIMIT', 0, limit)
  if #late > 0 then
    redis.call('ZREM', woken, unpack(late))
    redis.call('HDEL', ledger.key(root, 'waits', id), unpack(late))
  end
  return redis.call('ZRANGE', ledger.key(root, 'waiters', id), 0, limit - 1), redis.call('ZRANGE', woken, 0, limit - 1)
end

return waiters
