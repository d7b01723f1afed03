--- child_expect: register children of a parent: of a flow that is being added, or later, by the running parent itself
-- or by others; later ones travel through the outbox.
-- keys   1  root of the parent's queue
-- args   1  map {parent: str, children: [[key, {queue, id} as json str]…], token?: str,
--           add?: [[queue, job as json str]…]}
--           with `add` the parent has not ended (with a token it is running), `pending` grows, and children registered
--           before are not added again
-- reply  per child: the {queue, id} that stands
-- error  ARG GONE STALE STATE BACKLOGGED
-- cost   O(children); at most 500
local arg = require('lib.arg')
local family = require('lib.family')
local job = require('lib.job')
local layout = require('lib.layout')
local lease = require('lib.lease')
local outbox = require('lib.outbox')
local reply = require('lib.reply')

local MAX = 500
local FIELDS = { 'state', 'token', 'satellites', 'removed', 'pending', 'counted' }

local function parent_of(root, id, token, is_late)
  if token then
    return lease.hold(root, id, token, FIELDS)
  end
  local record = job.read(root, id, FIELDS)
  if not record or record.removed then
    reply.gone(id)
  end
  if is_late and job.TERMINAL[record.state] then
    reply.state(id, record.state, 'not ended')
  end
  return record
end

--- Send one child of a running parent off, and register it. Relaying an add twice adds one job.
local function adopt(root, id, record, child, add)
  if redis.call('HEXISTS', family.key(root, id), child[1]) == 0 then
    outbox.put(root, { { 'kind', 'add', 'queue', add[1], 'job', add[2], 'child', child[2] } })
    family.adopt(root, id, record, child[1], child[2])
  end
end

local function check(children, adds, is_late)
  for i, child in ipairs(children) do
    local add = adds[i]
    if type(child) ~= 'table' or type(child[1]) ~= 'string' or type(child[2]) ~= 'string' then
      reply.fail('ARG', 'children not a list of keys and jobs')
    end
    if is_late and (type(add) ~= 'table' or type(add[1]) ~= 'string' or type(add[2]) ~= 'string') then
      reply.fail('ARG', 'add not aligned with children')
    end
  end
end

local function child_expect(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, children, adds = arg.text(map, 'parent'), arg.list(map, 'children', MAX), arg.list(map, 'add', MAX)
  local is_late = arg.maybe_text(map, 'token') ~= nil or #adds > 0
  check(children, adds, is_late)
  local record = parent_of(root, id, map.token, is_late)
  if outbox.is_full(root) then
    reply.fail('BACKLOGGED', 'the outbox of this queue is full: its workers relay it; are any running?')
  end
  record.satellites = job.with_satellite(record.satellites, 'children')
  redis.call('HSET', layout.job(root, id), 'satellites', record.satellites)
  local standing = {}
  for i, child in ipairs(children) do
    if is_late then
      adopt(root, id, record, child, adds[i])
    else
      redis.call('HSETNX', family.key(root, id), child[1], child[2])
    end
    standing[i] = redis.call('HGET', family.key(root, id), child[1])
  end
  return standing
end

return { run = child_expect, flags = {} }
