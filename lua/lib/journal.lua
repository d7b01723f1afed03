--- journal: what a job remembers across runs, in its `steps` hash, under "kind:name#ordinal".
-- A field "?" .. key says that the wait or the paid step has begun; the field without it is the entry, written once.
-- The mailbox hash holds signals: "m:N" the message, "m:N:name" its name, "m:N:at" when it came, "m:N:to" the entry it
-- is on its way to, "id:SIGNAL" that it was seen, "n" the last N, "waiting" the Ns that wait, in order.
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

local journal = {}

journal.MAX_STEPS = 1000
journal.MAX_BYTES = 262144
journal.MAX_MAILBOX = 100

function journal.key(root, id)
  return layout.satellite(root, id, 'steps')
end

function journal.get(root, id, key)
  return redis.call('HGET', journal.key(root, id), key)
end

--- Note, before its first field, that the job owns a key.
local function own(root, id, record, name)
  if not job.has_satellite(record.satellites, name) then
    record.satellites = job.with_satellite(record.satellites, name)
    redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  end
end

--- Are there so many entries that no further one may begin? One that has begun may end.
function journal.is_full(root, id, key)
  local where = journal.key(root, id)
  return redis.call('HLEN', where) >= journal.MAX_STEPS and redis.call('HEXISTS', where, key) == 0
    and redis.call('HEXISTS', where, '?' .. key) == 0
end

--- Write an entry unless it is there; answers the entry that stands.
function journal.put(root, id, record, key, entry)
  local where = journal.key(root, id)
  own(root, id, record, 'steps')
  redis.call('HSETNX', where, key, entry)
  redis.call('HDEL', where, '?' .. key)
  return redis.call('HGET', where, key)
end

--- Note that a wait or a paid step has begun; answers what was noted first.
function journal.begin(root, id, record, key, text)
  local where = journal.key(root, id)
  own(root, id, record, 'steps')
  redis.call('HSETNX', where, '?' .. key, text)
  return redis.call('HGET', where, '?' .. key)
end

--- The oldest message of a name ("*": any) in the mailbox that came in time, or one that was on its way to this entry
-- already: its number and text, or nil; and the numbers of all that wait.
local function oldest(root, id, entry, name, until_)
  local key = layout.satellite(root, id, 'mailbox')
  local waiting = redis.call('HGET', key, 'waiting') or ''
  for n in string.gmatch(waiting, '%d+') do
    local field = 'm:' .. n
    local found = redis.call('HMGET', key, field, field .. ':name', field .. ':to', field .. ':at')
    local is_late = until_ and num.of(found[4], 0) > until_
    if found[1] and not is_late and (found[3] or entry) == entry and (name == '*' or found[2] == name) then
      return n, found[1], waiting
    end
  end
end

local function without(waiting, n)
  local left = string.gsub(',' .. waiting .. ',', ',' .. n .. ',', ',', 1)
  return string.sub(left, 2, -2)
end

--- Move the oldest fitting message that came before `until_` (nil: whenever) into the journal entry; answers the
-- entry, or nil if there is no message. It is in one of the two all the time, and on its way to no other entry.
function journal.consume(root, id, record, key, name, until_)
  if not job.has_satellite(record.satellites, 'mailbox') then
    return nil
  end
  local n, message, waiting = oldest(root, id, key, name, until_)
  if not n then
    return nil
  end
  local mailbox, field = layout.satellite(root, id, 'mailbox'), 'm:' .. n
  redis.call('HSET', mailbox, field .. ':to', key)
  local entry = journal.put(root, id, record, key, message)
  redis.call('HSET', mailbox, 'waiting', without(waiting, n))
  redis.call('HDEL', mailbox, field, field .. ':name', field .. ':at', field .. ':to')
  return entry
end

--- Put a message into the mailbox; answers 1 stored, 0 seen before, nil the mailbox is full.
function journal.deliver(root, id, record, signal, name, message, now)
  local key = layout.satellite(root, id, 'mailbox')
  local found = redis.call('HMGET', key, 'id:' .. signal, 'n', 'waiting')
  if found[1] then
    return 0
  end
  local n, waiting = num.text(num.of(found[2], 0) + 1), found[3] or ''
  if select(2, string.gsub(waiting, '%d+', '')) >= journal.MAX_MAILBOX then
    return nil
  end
  own(root, id, record, 'mailbox')
  redis.call('HSET', key, 'm:' .. n, message, 'm:' .. n .. ':name', name, 'm:' .. n .. ':at', now, 'id:' .. signal, 1,
    'n', n, 'waiting', waiting == '' and n or waiting .. ',' .. n)
  return 1
end

return journal
