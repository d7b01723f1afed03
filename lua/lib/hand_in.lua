--- hand_in: the outcomes of a turn, each checked against its job before the first is applied.
local arg = require('lib.arg')
local chunk = require('lib.chunk')
local ending = require('lib.ending')
local job = require('lib.job')
local outcome = require('lib.outcome')

local hand_in = {}

-- What `extra` may hold, and what it must hold for a kind.
local TEXTS = { 'error', 'reason', 'why', 'on' }
local COUNTS = { 'delay_ms', 'generation', 'fallback' }
local NEEDS = { failed = { 'reason' }, retry = { 'delay_ms' }, delayed = { 'why' } }

local function is_tail(tail)
  return type(tail) == 'table' and arg.is_int(tail[1]) and arg.is_chunks(tail[2])
end

local function is_extra(extra)
  for _, name in ipairs(TEXTS) do
    if type(extra[name] or '') ~= 'string' then
      return false
    end
  end
  for _, name in ipairs(COUNTS) do
    if not arg.is_count(extra[name] or 0) then
      return false
    end
  end
  return extra.tail == nil or is_tail(extra.tail)
end

local function has_needs(extra, kind)
  for _, name in ipairs(NEEDS[kind] or {}) do
    if extra[name] == nil then
      return false
    end
  end
  return true
end

local function is_line(line)
  return type(line) == 'table' and type(line[1]) == 'string' and type(line[2]) == 'string' and arg.is_int(line[4])
    and type(line[5] or '') == 'string' and type(line[6] or {}) == 'table'
end

--- Is this line an outcome that can be applied? Nothing may fail once the first one is written.
local function is_outcome(line)
  return is_line(line) and outcome.is_kind(line[3])
    and is_extra(line[6] or {}) and has_needs(line[6] or {}, line[3])
end

--- Read what the outcome needs of its job: little, where a job that owns nothing has completed.
local function read(root, line, is_repeat)
  if line[3] == 'completed' and not line[6] and not is_repeat then
    local record = job.read(root, line[1], ending.SHORT)
    if not record or not (record.satellites or record.cancel_requested) then
      return record
    end
  end
  return job.read(root, line[1], ending.FIELDS)
end

--- The turn may have been broken off after it had written something of this outcome.
local function finish_broken(root, id, record)
  if record.state == 'active' then
    chunk.catch_up(root, id, record)
  else
    ending.sweep(root, 'active', id)
  end
end

--- Check one outcome against its job; answers its code and, when it is to be applied, the job's record.
local function judge(root, line, seen, is_repeat)
  local id, token = line[1], line[2]
  if seen[id] then
    return 'r'
  end
  seen[id] = true
  local record = read(root, line, is_repeat)
  if not record then
    return 'g'
  end
  if record.token ~= token then
    return 's'
  end
  if is_repeat then
    finish_broken(root, id, record)
  end
  if record.state ~= 'active' then
    return 'a'
  end
  return 'o', record
end

--- Apply outcomes; answers a letter for each (see functions/turn.lua).
function hand_in.run(root, now, done, call)
  local codes, accepted, seen = {}, {}, {}
  for i, line in ipairs(done) do
    if not is_outcome(line) then
      codes[i] = 'r'
    else
      local record
      codes[i], record = judge(root, line, seen, call.is_repeat)
      accepted[#accepted + 1] = record and { line, record }
    end
  end
  if #accepted > 0 then
    local tx = ending.begin(root, now, call.keep)
    for _, pair in ipairs(accepted) do
      outcome.apply(tx, pair[1][1], pair[2], pair[1])
    end
    ending.commit(tx)
  end
  return table.concat(codes)
end

return hand_in
