--- cargo: what the reply of a turn brings of the jobs that it gives out: a line each, their data, and small journals.
local job = require('lib.job')
local journal = require('lib.journal')
local num = require('lib.num')

local cargo = {}

-- Room for journals. What doesn't fit is asked for by its run: a journal may hold 256 MB, a turn 256 claims.
local JOB_BYTES = 65536
local TURN_BYTES = 1048576
-- What an entry counts for besides its text, so that a bound on bytes bounds their number, and so the time, too.
local ENTRY_BYTES = 512

function cargo.new()
  return { claims = {}, data = {}, journals = {}, room = TURN_BYTES }
end

--- A journal as a flat list of keys and entries, or nil if it takes more than `room`; and the room that is gone then,
-- for looking, too.
local function read_small(key, room)
  local looked = redis.call('HLEN', key) * ENTRY_BYTES
  if looked > room then
    return nil, 0
  end
  local bytes = looked
  for _, field in ipairs(redis.call('HKEYS', key)) do
    bytes = bytes + #field + redis.call('HSTRLEN', key, field)
  end
  if bytes > room then
    return nil, looked
  end
  return redis.call('HGETALL', key), bytes
end

--- 0: the job has no journal; 1: it comes along; 2: it has to be asked for.
local function load_journal(goods, root, id, satellites)
  if not job.has_satellite(satellites, 'steps') then
    return 0
  end
  local flat, bytes = read_small(journal.key(root, id), math.min(JOB_BYTES, goods.room))
  goods.room = goods.room - bytes
  if not flat then
    return 2
  end
  goods.journals[#goods.journals + 1] = flat
  return 1
end

--- Add a claimed job. `run`, `lease` and `is_suspect` are those of this claim, `record` is as it was before.
function cargo.add(goods, root, id, record, run, lease, is_suspect)
  local n = #goods.claims + 1
  goods.claims[n] = {
    id, run, num.of(record.attempt, 1), record.name, num.of(record.created_at, 0), num.of(record.stalled, 0), lease,
    is_suspect, record.options or '', record.commit or '', num.of(record.place, 0),
    load_journal(goods, root, id, record.satellites), num.of(record.fallback_index, 0),
  }
  goods.data[n] = record.data or ''
end

--- The reply: a packed header, then the data, then the journals.
function cargo.reply(goods, header)
  local reply = { cmsgpack.pack(header), unpack(goods.data) }
  for _, flat in ipairs(goods.journals) do
    reply[#reply + 1] = flat
  end
  return reply
end

return cargo
