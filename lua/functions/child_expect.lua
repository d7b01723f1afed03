--- child_expect: register children of a parent: of a flow that is being added, or by the running parent itself, whose
-- new children then travel through the outbox.
-- keys   1  root of the parent's queue
-- args   1  map {parent: str, children: [[key, {queue, id} as json str]…], token?: str,
--           add?: [[queue, job as json str]…]}
--           with a token the parent is running, `pending` grows, and children registered before are not added again
-- reply  per child: the {queue, id} that stands
-- error  ARG GONE STALE BACKLOGGED
-- cost   O(children); at most 500
local arg = require('lib.arg')
local family = require('lib.family')
local job = require('lib.job')
local layout = require('lib.layout')
local lease = require('lib.lease')
local outbox = require('lib.outbox')
local reply = require('lib.reply')

local MAX = 500
local FIELDS = { 'state', 'token', 'satellites', 'removed' }

local function parent_of(root, id, token)
  if token then
    return lease.hold(root, id, token, FIELDS)
  end
  local record = job.read(root, id, FIELDS)
  if not record or record.removed then
    reply.gone(id)
  end
  return record
end

--- Register one child of a running parent, and send it off.
local function adopt(root, id, child, add)
  if redis.call('HSETNX', family.key(root, id), child[1], child[2]) == 1 then
    redis.call('HINCRBY', layout.job(root, id), 'pending', 1)
    outbox.put(root, { { 'kind', 'add', 'queue', add[1], 'job', add[2] } })
  end
end

local function child_expect(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, children, adds = arg.text(map, 'parent'), arg.list(map, 'children', MAX), arg.list(map, 'add', MAX)
  local record = parent_of(root, id, map.token)
  if outbox.is_full(root) then
    reply.fail('BACKLOGGED', 'the outbox of this queue is full')
  end
  redis.call('HSET', layout.job(root, id), 'satellites', job.with_satellite(record.satellites, 'children'))
  local standing = {}
  for i, child in ipairs(children) do
    if map.token then
      adopt(root, id, child, adds[i])
    else
      redis.call('HSETNX', family.key(root, id), child[1], child[2])
    end
    standing[i] = redis.call('HGET', family.key(root, id), child[1])
  end
  return standing
end

return { run = child_expect, flags = {} }
