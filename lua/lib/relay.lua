--- relay: an outbox, of a queue or a ledger, as whoever relays it sees it. An entry that can't be relayed is put aside,
-- so that it holds up none behind it, and comes again at growing distances; it is never dropped.
local arg = require('lib.arg')
local layout = require('lib.layout')
local num = require('lib.num')
local reply = require('lib.reply')

local relay = {}

local FIRST_MS = 1000
local LONGEST_MS = 60000
local MAX_WORDS = 1000
local OF = 'of ' -- a field of what is put aside: the first entry about a job, which later ones must not overtake

--- The entries that could not be relayed, as an argument: [[id, why]].
function relay.failed(map, limit)
  local failed = arg.list(map, 'failed', limit)
  for _, line in ipairs(failed) do
    if type(line) ~= 'table' or type(line[1]) ~= 'string' or not string.find(line[1], '^%d+%-%d+$')
      or type(line[2]) ~= 'string' or #line[2] > MAX_WORDS then
      reply.fail('ARG', 'failed not a list of entries and reasons')
    end
  end
  return failed
end

local function stuck(root, id)
  local text = redis.call('HGET', layout.outbox_stuck(root), id)
  return text and cmsgpack.unpack(text)
end

--- What an entry is about, if its order matters: a child's cancelling must not overtake its adding, nor its second end
-- (after a retry) its first.
local function subject(fields)
  local found = {}
  for i = 1, #fields, 2 do
    found[fields[i]] = fields[i + 1]
  end
  return found.child or found.kind == 'child' and found.id or nil
end

local function read(root, id, fields, tries)
  local about = subject(fields)
  local first = about and redis.call('HGET', layout.outbox_stuck(root), OF .. about) or id
  return { id, fields, about or '', first == id and 0 or 1, tries }
end

--- The oldest entries, up to stream id `last`, then up to `retries` of those put aside whose time has come:
-- [id, fields, subject ('' if none), 1 if it has to wait for another one about that, tries that were in vain].
function relay.read(root, now, limit, retries, last)
  local found = {}
  for i, entry in ipairs(redis.call('XRANGE', layout.outbox(root), '-', last, 'COUNT', limit)) do
    found[i] = read(root, entry[1], entry[2], 0)
  end
  local due = redis.call('ZRANGEBYSCORE', layout.outbox_due(root), '-inf', now, 'LIMIT', 0, retries)
  for _, id in ipairs(due) do
    local one = stuck(root, id) or { fields = {}, tries = 0 } -- left by a call that broke off: to be acknowledged
    found[#found + 1] = read(root, id, one.fields, one.tries)
  end
  return found
end

--- Those put aside, by when they are tried again: [id, tries, since, why, due, fields (the short ones)].
function relay.list(root, limit)
  local found, ids = {}, redis.call('ZRANGE', layout.outbox_due(root), 0, limit - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    local one, short = stuck(root, ids[i]) or { fields = {} }, {}
    for at = 1, #one.fields, 2 do
      if #one.fields[at + 1] <= MAX_WORDS then
        short[#short + 1] = one.fields[at]
        short[#short + 1] = one.fields[at + 1]
      end
    end
    found[#found + 1] = { ids[i], one.tries or 0, one.since or 0, one.why or '', ids[i + 1], short }
  end
  return found
end

--- Forget entries that were relayed; answers how many there were.
function relay.forget(root, ids)
  local count = redis.call('XDEL', layout.outbox(root), unpack(ids))
  local key, due = layout.outbox_stuck(root), layout.outbox_due(root)
  if redis.call('EXISTS', key, due) == 0 then
    return count
  end
  for _, id in ipairs(ids) do
    local one = stuck(root, id)
    local about = one and subject(one.fields)
    if about and redis.call('HGET', key, OF .. about) == id then
      redis.call('HDEL', key, OF .. about)
    end
    redis.call('HDEL', key, id)
    count = count + redis.call('ZREM', due, id)
  end
  return count
end

--- Put aside what could not be relayed; what is not in the outbox any more has been relayed by others.
function relay.defer(root, now, failed)
  local key, due = layout.outbox_stuck(root), layout.outbox_due(root)
  for _, line in ipairs(failed) do
    local id = line[1]
    local entry = redis.call('XRANGE', layout.outbox(root), id, id)[1]
    local one = stuck(root, id) or entry and { fields = entry[2], tries = 0, since = now }
    if one then
      one.tries, one.why = one.tries + 1, line[2]
      local about = subject(one.fields)
      redis.call('HSET', key, id, cmsgpack.pack(one))
      if about then
        redis.call('HSETNX', key, OF .. about, id)
      end
      redis.call('ZADD', due, num.text(now + math.min(FIRST_MS * 2 ^ (one.tries - 1), LONGEST_MS)), id)
      redis.call('XDEL', layout.outbox(root), id)
    end
  end
end

return relay
