--- journal: what a job remembers across runs, in its `steps` hash, under "kind:name#ordinal".
-- A field "?" .. key says that the wait or the paid step has begun; the field without it is the entry, written once.
-- The mailbox hash holds signals: "m:N" the message, "id:SIGNAL" that it was seen, "n" the last N.
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

--- Write an entry unless it is there; answers the entry that stands.
function journal.put(root, id, record, key, entry)
  local where = journal.key(root, id)
  redis.call('HSETNX', where, key, entry)
  redis.call('HDEL', where, '?' .. key)
  record.satellites = job.with_satellite(record.satellites, 'steps')
  redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  return redis.call('HGET', where, key)
end

--- Note that a wait or a paid step has begun; answers what was noted first.
function journal.begin(root, id, record, key, text)
  local where = journal.key(root, id)
  redis.call('HSETNX', where, '?' .. key, text)
  record.satellites = job.with_satellite(record.satellites, 'steps')
  redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  return redis.call('HGET', where, '?' .. key)
end

--- The oldest message of a name ("*": any) in the mailbox: its field and text, or nil.
local function oldest(root, id, name)
  local key = layout.satellite(root, id, 'mailbox')
  local last = num.of(redis.call('HGET', key, 'n'), 0)
  local first = num.of(redis.call('HGET', key, 'first'), 1)
  for n = first, math.min(last, first + journal.MAX_MAILBOX) do
    local field = 'm:' .. num.text(n)
    local found = redis.call('HMGET', key, field, field .. ':name')
    if found[1] and (name == '*' or found[2] == name) then
      return field, found[1]
    end
  end
end

--- Move the oldest fitting message into the journal entry; answers the entry, or nil if there is no message.
function journal.consume(root, id, record, key, name)
  if not job.has_satellite(record.satellites, 'mailbox') then
    return nil
  end
  local field, message = oldest(root, id, name)
  if not field then
    return nil
  end
  local mailbox = layout.satellite(root, id, 'mailbox')
  redis.call('HDEL', mailbox, field, field .. ':name')
  redis.call('HINCRBY', mailbox, 'pending', -1)
  return journal.put(root, id, record, key, message)
end

--- Put a message into the mailbox; answers 1 stored, 0 seen before, nil the mailbox is full.
function journal.deliver(root, id, record, signal, name, message)
  local key = layout.satellite(root, id, 'mailbox')
  if redis.call('HEXISTS', key, 'id:' .. signal) == 1 then
    return 0
  end
  if num.of(redis.call('HGET', key, 'pending'), 0) >= journal.MAX_MAILBOX then
    return nil
  end
  local field = 'm:' .. num.text(redis.call('HINCRBY', key, 'n', 1))
  redis.call('HSET', key, field, message, field .. ':name', name, 'id:' .. signal, 1)
  redis.call('HINCRBY', key, 'pending', 1)
  record.satellites = job.with_satellite(record.satellites, 'mailbox')
  redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  return 1
end

--- Try to end the wait that a job is in: by a message, or by its deadline. Answers true if it is over.
function journal.settle_wait(root, id, record, now)
  if journal.get(root, id, record.wait_key) or journal.consume(root, id, record, record.wait_key, record.wait_name) then
    return true
  end
  if record.wait_until and record.wait_until ~= '' and tonumber(record.wait_until) <= now then
    journal.put(root, id, record, record.wait_key, '{"timeout":true}')
    return true
  end
  return false
end

return journal
