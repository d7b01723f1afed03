--- claim: give waiting jobs to a worker. A job is claimed with a lease token and a deadline in `active`.
local cargo = require('lib.cargo')
local change = require('lib.change')
local ending = require('lib.ending')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

local claim = {}

local DEFAULT_LEASE_MS = 30000

claim.FIELDS = {
  'state', 'token', 'data', 'name', 'attempt', 'run', 'options', 'lock_ms', 'stalled', 'expires_at', 'created_at',
  'started_at', 'satellites', 'commit', 'started_run', 'lease_ms', 'place', 'fallback_index',
}

--- Ids to look at: the head of the line, and before it the eldest suspect where the worker may take one.
local function candidates(root, want, may_suspect)
  local found = redis.call('ZRANGE', layout.index(root, 'waiting'), 0, want - 1, 'WITHSCORES')
  local heads = {}
  if may_suspect then
    local suspect = redis.call('ZRANGE', layout.index(root, 'suspects'), 0, 0, 'WITHSCORES')
    if suspect[1] and (#found < 2 * want or tonumber(suspect[2]) <= tonumber(found[2])) then
      heads[1] = { suspect[1], suspect[2], 'suspects' }
    end
  end
  for i = 1, #found, 2 do
    if #heads < want then
      heads[#heads + 1] = { found[i], found[i + 1], 'waiting' }
    end
  end
  return heads
end

local function is_expired(record, now)
  return record.expires_at and not record.started_at and tonumber(record.expires_at) <= now
end

--- Add to `goods` a claim made by an earlier call, if its token is still current; answers whether it is.
function claim.add_again(goods, root, id, token, call)
  local record = job.read(root, id, claim.FIELDS)
  if not record or record.token ~= token or record.state ~= 'active' then
    return false
  end
  local run, lease = num.of(record.run, 1), num.of(record.lock_ms, call.lease_ms)
  cargo.add(goods, root, id, record, run, lease, record.started_run == record.run)
  return true
end

--- Stage one claim.
local function take(tx, goods, head, record, call, token)
  local id, index = head[1], head[3]
  local run = num.of(record.run, 0) + 1
  local lease = num.of(record.lock_ms, call.lease_ms)
  local fields = { 'token', token, 'owner', call.worker, 'run', run }
  if lease ~= DEFAULT_LEASE_MS or record.lease_ms then
    fields[7], fields[8] = 'lease_ms', lease
  end
  if index == 'suspects' then
    fields[#fields + 1] = 'started_run'
    fields[#fields + 1] = run
  end
  change.move(tx, id, index, 'active', tx.now + lease, fields)
  change.note(tx, 'active', id)
  cargo.add(goods, tx.root, id, record, run, lease, index == 'suspects')
end

local function expire(tx, id, index)
  local record = job.read(tx.root, id, ending.FIELDS)
  ending.terminal(tx, id, record, index, 'failed', { 'reason', 'expired' })
end

--- Claim up to call.want jobs. `call` is {worker, nonce, want, lease_ms, suspects}.
-- Answers the token, the cargo, and the transaction, whose `leave` is up to the caller: until the claims are out of the
-- line, a turn that breaks off can take them once more.
function claim.take(root, now, call, defaults)
  local heads = candidates(root, call.want, call.suspects == 0)
  if #heads == 0 then
    return '', cargo.new(), change.begin(root)
  end
  local token = num.text(redis.call('HINCRBY', layout.meta(root), 'lease', 1)) .. '-' .. call.nonce
  local tx, overdue, goods = change.begin(root), ending.begin(root, now, defaults), cargo.new()
  tx.now = now
  for _, head in ipairs(heads) do
    local record = job.read(root, head[1], claim.FIELDS)
    if not record or job.TERMINAL[record.state] then
      ending.sweep(root, head[3], head[1])
    elseif is_expired(record, now) then
      expire(overdue, head[1], head[3])
    else
      take(tx, goods, head, record, call, token)
    end
  end
  ending.commit(overdue)
  change.enter(tx)
  return token, goods, tx
end

return claim
