--- stream_read_many: new chunks of several jobs, bounded in bytes, with the end of those that have ended.
-- keys   1  root of the queue
-- args   1  map {jobs: [[id, after, look?]…], limit: int, bytes: int}; after "" reads from the beginning; look: say
--           which model call is open at `after`
-- reply  per job, in order: [entries [[id, [field, value…]]…], first id kept if chunks after `after` are trimmed,
--        end: "" while it may still grow, else the state or "gone", the open call or ""]; fewer rows than jobs when
--        `bytes` is reached
-- error  ARG
-- cost   O(chunks returned); at most 256 jobs and `limit` chunks each, and 64 more for a look
local arg = require('lib.arg')
local job = require('lib.job')
local layout = require('lib.layout')
local reply = require('lib.reply')

local MAX_JOBS = 256
local LOOK = 64 -- a writer marks each so manieth chunk of a run with the call that is open

local function size_of(entries)
  local bytes = 0
  for _, entry in ipairs(entries) do
    for _, text in ipairs(entry[2]) do
      bytes = bytes + #text
    end
  end
  return bytes
end

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_older(a, b)
  local a_ms, a_seq = parts(a)
  local b_ms, b_seq = parts(b)
  return a_ms < b_ms or (a_ms == b_ms and a_seq < b_seq)
end

--- The first id kept, where something after `after` has been trimmed; else "".
local function gap(key, after)
  local first = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if not first then
    return ''
  end
  if after ~= '' then
    return is_older(after, first[1]) and first[1] or ''
  end
  local info = redis.call('XINFO', 'STREAM', key)
  local facts = {}
  for i = 1, #info, 2 do
    facts[info[i]] = info[i + 1]
  end
  return facts['entries-added'] > facts['length'] and first[1] or ''
end

--- What ends the reading of a job that shows nothing new: its state, or "gone". The `end` record is written in the
-- call that ends the job, so an ended job without new entries has none to come.
local function ending(root, id)
  local record = job.read(root, id, { 'state' })
  if not record then
    return 'gone'
  end
  return job.TERMINAL[record.state] and record.state or ''
end

local function facts(entry, run)
  local is_json, found = pcall(cjson.decode, entry[2][6] == run and entry[2][10] or '')
  return is_json and type(found) == 'table' and found or {}
end

--- The call that is open before `entries`, in the run that wrote them; else "". See open_after of `_chunk.py`.
local function open_call(key, after, entries)
  local run, ended = entries[1][2][6], {}
  for _, entry in ipairs(redis.call('XREVRANGE', key, after, '-', 'COUNT', LOOK)) do
    local kind, found = entry[2][2], facts(entry, run)
    local call = found._call or (kind == 'start' and found.call)
    if kind == 'done' or kind == 'reset' then
      ended[found.call or ''] = true
    end
    if type(call) == 'string' then
      return ended[call] and '' or call
    end
  end
  return ''
end

local function read(root, wanted, limit)
  local id, after = wanted[1], wanted[2]
  local key = layout.satellite(root, id, 'chunks')
  local entries = redis.call('XRANGE', key, after == '' and '-' or '(' .. after, '+', 'COUNT', limit)
  local has_any = #entries > 0
  local call = wanted[3] and has_any and after ~= '' and open_call(key, after, entries) or ''
  return { entries, gap(key, after), has_any and '' or ending(root, id), call }, size_of(entries)
end

local function check(jobs)
  for _, wanted in ipairs(jobs) do
    if type(wanted[1]) ~= 'string' or not (wanted[2] == '' or parts(wanted[2] or '?')) then
      reply.fail('ARG', 'after not the id of a chunk')
    end
  end
end

local function stream_read_many(keys, args)
  local root, map = keys[1], arg.map(args)
  local jobs = arg.list(map, 'jobs', MAX_JOBS)
  local limit, left = arg.int(map, 'limit', 1, 10000), arg.int(map, 'bytes', 1, 16777216)
  check(jobs)
  local rows = {}
  for i, wanted in ipairs(jobs) do
    if left > 0 then
      local row, bytes = read(root, wanted, limit)
      rows[i] = row
      left = left - bytes
    end
  end
  return rows
end

return { run = stream_read_many, flags = { 'no-writes' } }
