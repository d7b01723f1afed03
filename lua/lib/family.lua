--- family: parents and children of a flow. A parent counts its `pending` children and keeps their endings in its
-- `children` hash: KEY is the child {queue, id} as JSON, "KEY:end" its ending. A child's `parent` field is a JSON list
-- of [{queue, id, key, policy}]; what a child's end means for its parents travels through the outbox.
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')
local usage = require('lib.usage')

local family = {}

local MAX_CANCEL = 10000 -- as many as a flow may have below one parent

function family.key(root, id)
  return layout.satellite(root, id, 'children')
end

local function value_of(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then
      return fields[i + 1]
    end
  end
end

--- An outbox entry with what the job's hash gains at its end: result, error, reason.
function family.with_ending(entry, fields)
  for _, name in ipairs({ 'result', 'error', 'reason' }) do
    local value = value_of(fields, name)
    if value then
      entry[#entry + 1] = name
      entry[#entry + 1] = value
    end
  end
  return entry
end

--- What a job and all its descendants have used, as JSON; nil if nothing.
local function usage_of(root, id, record)
  if not job.has_satellite(record.satellites, 'usage') then
    return nil
  end
  local flat, sums = redis.call('HGETALL', layout.satellite(root, id, 'usage')), {}
  for i = 1, #flat, 2 do
    local name = string.gsub(flat[i], '^flow_', '')
    if string.find(name, '^tokens:') or string.find(name, '^costs:') then
      sums[name] = num.text(tonumber(sums[name] or 0) + tonumber(flat[i + 1]))
    end
  end
  return cjson.encode(sums)
end

--- The outbox entry that tells a job's parents of its end; `fields` is what its hash gains.
function family.entry(root, id, record, state, fields)
  local entry = family.with_ending({ 'kind', 'child', 'parents', record.parent, 'id', id, 'state', state }, fields)
  local used = usage_of(root, id, record)
  if used then
    entry[#entry + 1] = 'usage'
    entry[#entry + 1] = used
  end
  return entry
end

--- Write a field of the `children` hash once, and count it in `pending`. The count goes first, with the name of what
-- was counted: a call that broke off in between is repeated without counting again. Answers false if it is there.
local function count_once(root, id, record, field, text, step, amounts)
  if redis.call('HEXISTS', family.key(root, id), field) == 1 then
    return false
  end
  if record.counted ~= field then
    record.pending = num.of(record.pending, 0) + step
    record.satellites = job.with_satellite(record.satellites, 'children')
    redis.call('HSET', layout.job(root, id), 'pending', record.pending, 'counted', field,
      'satellites', record.satellites)
  end
  usage.add_flow(root, id, record, field, amounts)
  redis.call('HSET', family.key(root, id), field, text)
  return true
end

--- Register a child of a running parent; answers false if it was registered before.
function family.adopt(root, id, record, key, child)
  return count_once(root, id, record, key, child, 1, {})
end

--- Note a child's end on its parent; answers false if it was noted before.
function family.note_end(root, id, record, key, text, amounts)
  return count_once(root, id, record, key .. ':end', text, -1, amounts)
end

--- The outbox entries that cancel the children which have not ended.
function family.cancellations(root, id, record)
  local entries = {}
  if not job.has_satellite(record.satellites, 'children') then
    return entries
  end
  local flat, children = redis.call('HGETALL', family.key(root, id)), {}
  for i = 1, #flat, 2 do
    children[flat[i]] = flat[i + 1]
  end
  for key, child in pairs(children) do
    if not string.find(key, ':end$') and not children[key .. ':end'] and #entries < MAX_CANCEL then
      entries[#entries + 1] = { 'kind', 'cancel', 'child', child }
    end
  end
  return entries
end

return family
