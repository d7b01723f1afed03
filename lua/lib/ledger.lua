--- ledger: keys and records of a ledger slot `glidemq:{ledger:NAME}`, and the one write that changes them.
-- A record is a packed map under a key of its own, so that a call reads all it needs with one MGET and changes all
-- of it with one MSET: a call, its budgets and its limiters agree whatever breaks. Sorted sets are indexes only.
--   call:ID           a reservation; once settled a marker for a day
--   budget:ID         caps, weights and the current window; spend:ID:WINDOW its sums
--   limiter:NAME      debts, cap, breaker; slots:NAME calls under a concurrency limit by deadline
--   ticket:ID         the time promised to a caller that was turned away
--   entries:ID        the log of a budget; events: crossed thresholds of all
--   waiters:ID        parked jobs by the time they came, waits:ID their estimates, woken:ID those on their way
--   calls, deadlines  open reservations by name and by deadline; windows: budgets by the end of their window
--   parked            budgets with waiters by when they were looked at; outbox: unparks to be relayed
local arg = require('lib.arg')
local memory = require('lib.ledger_memory')
local reply = require('lib.reply')

local ledger = {}

ledger.DAY_MS = 86400000
ledger.MAX_AMOUNT = 1e9 -- tokens of one call and category; with weights and sums it stays exact
ledger.MAX_NAMES = 64

--- The key of a kind, of one name.
function ledger.key(root, kind, name)
  return name and root .. ':' .. kind .. ':' .. name or root .. ':' .. kind
end

--- Read records; absent ones are nil in the answer.
function ledger.read(keys)
  local found = {}
  if #keys > 0 then
    for i, text in ipairs(redis.call('MGET', unpack(keys))) do
      found[i] = text and memory.take(keys[i], text) or nil
    end
  end
  return found
end

--- What a call will write.
function ledger.begin(root, now)
  return { root = root, now = now, writes = {}, lives = {}, hot = {} }
end

--- Stage a record; with `life_ms` it lives that long from now. `is_hot`: call after call changes it; once it is written
-- nobody may change it who has not read it again, or puts it again.
function ledger.put(tx, key, record, life_ms, is_hot)
  local writes, text = tx.writes, cmsgpack.pack(record)
  writes[#writes + 1] = key
  writes[#writes + 1] = text
  if is_hot then
    memory.forget(key)
    tx.hot[#writes] = record
  end
  if life_ms then
    tx.lives[#tx.lives + 1] = { key, life_ms }
  end
end

--- Write all that was staged: all of it or nothing.
function ledger.commit(tx)
  local writes = tx.writes
  if #writes > 0 then
    redis.call('MSET', unpack(writes))
  end
  for at, record in pairs(tx.hot) do
    memory.keep(writes[at - 1], writes[at], record)
  end
  for _, life in ipairs(tx.lives) do
    redis.call('PEXPIRE', life[1], math.ceil(life[2]))
  end
end

--- Amounts by name as an argument: few, and small enough for exact sums.
function ledger.amounts(map, field, most)
  local amounts, count = arg.amounts(map, field), 0
  for name, amount in pairs(amounts) do
    count = count + 1
    if amount > most or #name > 64 then
      reply.fail('ARG', field .. ' holds too large amounts or names')
    end
  end
  if count > ledger.MAX_NAMES then
    reply.fail('ARG', field .. ' holds too many amounts')
  end
  return amounts
end

--- A list of different names.
function ledger.names(map, field, limit)
  local names, seen = arg.texts(map, field, limit), {}
  for _, name in ipairs(names) do
    if seen[name] or name == '' or #name > 256 then
      reply.fail('ARG', field .. ' not a list of different names')
    end
    seen[name] = true
  end
  return names
end

return ledger
