--- stream_append: the chunks of several running jobs, in order, each once.
-- keys   1  root of the queue
-- args   1  map {parts: [[id, token, run, first seq, [[type, content, fields?]…]]…],
--           repeat?: bool}
-- reply  packed [[id, code, last chunk's id]…]: code o appended, s stale, g gone, x a gap before the part
-- error  ARG
-- cost   O(chunks); at most 256 parts, 1,024 chunks
local arg = require('lib.arg')
local chunk = require('lib.chunk')
local job = require('lib.job')
local news = require('lib.news')
local reply = require('lib.reply')

local MAX_PARTS = 256
local MAX_CHUNKS = 1024
local FIELDS = { 'state', 'token', 'chunk', 'satellites', 'stream_bytes', 'commit' }

local function check(parts)
  for _, part in ipairs(parts) do
    if not arg.is_chunks(part[5]) or #part[5] > MAX_CHUNKS then
      reply.fail('ARG', 'parts not lists of at most ' .. MAX_CHUNKS .. ' chunks')
    end
    arg.int({ first = part[4] }, 'first', 1, 1e12)
    arg.int({ run = part[3] }, 'run', 1, 1e12)
  end
end

--- Append one part; answers its code and the id of its last chunk.
local function append(root, part, is_repeat)
  local id = part[1]
  local record = job.read(root, id, FIELDS)
  if not record then
    return 'g', ''
  end
  if record.state ~= 'active' or record.token ~= part[2] then
    return 's', ''
  end
  if is_repeat then
    chunk.catch_up(root, id, record)
  end
  local from = chunk.first_new(record, part[3], part[4])
  if not from then
    return 'x', ''
  end
  if from > #part[5] then
    return 'o', ''
  end
  return 'o', chunk.append(root, id, record, part[3], part[4], part[5], from)
end

local function stream_append(keys, args)
  local root, map = keys[1], arg.map(args)
  local parts = arg.runs(map, 'parts', MAX_PARTS)
  check(parts)
  local replies, told = {}, {}
  for i, part in ipairs(parts) do
    local code, last = append(root, part, map['repeat'])
    replies[i] = { part[1], code, last }
    told[#told + 1] = code == 'o' and part[1] or nil
  end
  news.chunks(root, told)
  return cmsgpack.pack(replies)
end

return { run = stream_append, flags = { 'allow-oom' } }
