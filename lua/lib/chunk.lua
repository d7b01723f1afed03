--- chunk: a job's stream. Every entry has type, content, epoch (the run) and seq, and may have fields (JSON).
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

local chunk = {}

local MAX_ENTRIES = 10000
local MAX_BYTES = 4194304
local ENTRY_BYTES = 40 -- what an entry costs beside its content

-- Fields of the job that an append reads; `chunk` is "run:seq" of the last one appended.
chunk.FIELDS = { 'chunk', 'satellites', 'stream_bytes', 'commit' }

--- The index of the first chunk of a part that is new, or nil if there is a gap before the part.
function chunk.first_new(record, run, first)
  local last_run, last = string.match(record.chunk or '', '^(%d+):(%d+)$')
  last = tonumber(last_run) == run and tonumber(last) or 0
  if first > last + 1 then
    return nil
  end
  return last - first + 2
end

local function id_parts(id)
  local ms, seq = string.match(id or '', '^(%d+)-(%d+)$')
  return tonumber(ms or 0), tonumber(seq or 0)
end

--- Does the stream hold anything after the commit point?
local function has_after(key, commit)
  local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
  if not newest then
    return false
  end
  local ms, seq = id_parts(newest[1])
  local commit_ms, commit_seq = id_parts(commit)
  return ms > commit_ms or (ms == commit_ms and seq > commit_seq)
end

local function add(key, type, content, run, seq, fields)
  if fields then
    return redis.call('XADD', key, 'MAXLEN', '~', MAX_ENTRIES, '*',
      'type', type, 'content', content, 'epoch', run, 'seq', seq, 'fields', fields)
  end
  return redis.call('XADD', key, 'MAXLEN', '~', MAX_ENTRIES, '*',
    'type', type, 'content', content, 'epoch', run, 'seq', seq)
end

--- A run's first append tells readers what to drop of the runs before it.
local function reset_if_needed(key, record, run)
  if not string.find(record.chunk or '', '^' .. num.text(run) .. ':') and has_after(key, record.commit) then
    local kept = (record.commit or '') ~= '' and record.commit or '0'
    add(key, 'reset', 'retry', run, 0, '{"keep_upto":"' .. kept .. '"}')
  end
end

local function bounded_bytes(key, bytes)
  if bytes <= MAX_BYTES then
    return bytes
  end
  local length = redis.call('XLEN', key)
  redis.call('XTRIM', key, 'MAXLEN', math.floor(length * 3 / 4))
  return math.floor(bytes * 3 / 4)
end

--- Before an append that may be the repeat of one that was broken off: what the stream has counts, not what the job
-- says of it.
function chunk.catch_up(root, id, record)
  local newest = redis.call('XREVRANGE', layout.satellite(root, id, 'chunks'), '+', '-', 'COUNT', 1)[1]
  local position = newest and newest[2][6] .. ':' .. newest[2][8]
  if position and position ~= record.chunk then
    record.chunk = position
    redis.call('HSET', layout.job(root, id), 'chunk', position, 'last_chunk', newest[1])
  end
end

--- Note, before its first chunk, that the job owns a stream; answers true if it did not.
local function own(root, id, record)
  if not job.has_satellite(record.satellites, 'chunks') then
    record.satellites = job.with_satellite(record.satellites, 'chunks')
    redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
    return true
  end
end

--- Append chunks[from..] of a part that begins at seq `first`. Keeps `record` current; answers the last entry's id.
function chunk.append(root, id, record, run, first, chunks, from)
  local key = layout.satellite(root, id, 'chunks')
  if not own(root, id, record) then
    reset_if_needed(key, record, run)
  end
  local bytes, last = num.of(record.stream_bytes, 0), nil
  for i = from, #chunks do
    local piece = chunks[i]
    last = add(key, piece[1], piece[2], run, first + i - 1, piece[3])
    bytes = bytes + #piece[2] + #(piece[3] or '') + ENTRY_BYTES
  end
  record.chunk = num.text(run) .. ':' .. num.text(first + #chunks - 1)
  record.stream_bytes = num.text(bounded_bytes(key, bytes))
  redis.call('HSET', layout.job(root, id), 'chunk', record.chunk, 'stream_bytes', record.stream_bytes,
    'last_chunk', last or '', 'started_run', run)
  return last
end

--- Write the one `end` record of a job that has a stream; nothing follows it, not even a second one after a break.
function chunk.finish(root, id, record, state, run)
  if job.has_satellite(record.satellites, 'chunks') then
    local key = layout.satellite(root, id, 'chunks')
    local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
    if not newest or newest[2][2] ~= 'end' then
      add(key, 'end', state, run, 0)
    end
  end
end

return chunk
