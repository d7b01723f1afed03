--- turn: a worker hands in finished outcomes and takes new jobs, in one call, after a bounded round of upkeep.
-- keys   1  root of the queue
-- args   1  map {worker: str, turn: int, nonce: str, want: int, lease_ms: int, suspects: int, max_stalled: int,
--           done: [[id, token, kind, ago_ms, text|nil, extra|nil]], started?: [[id, token, ago_ms]],
--           keep_completed?: str, keep_failed?: str, dead_letter?: str, repeat?: bool}
-- reply  [packed [codes, token, claims, next_ms, more, revision, outbox, limits, now], data of each claim in order…,
--        flat journal of each claim that has journal = 1, in order…]
--        codes: a letter per outcome: o applied, a already applied, s stale, g gone, r refused
--        claims: [id, run, attempt, name, created_at, stalled, lease_ms, is_suspect, options, commit,
--        place, journal, fallback_index]; journal: 0 none, 1 comes along, 2 has to be asked for (see job_journal)
--        next_ms: until a call could do something, -1: nothing known; more: 1 when startable jobs are left
--        limits: version of the queue's own limiters (see queue_limits), 0: it has none, -1: not told (a repeat)
--        now: the server's time, at which these runs begin for their ledgers
-- error  ARG
-- cost   O((outcomes + claims) x log jobs); at most 256 outcomes and 256 claims
local arg = require('lib.arg')
local build = require('lib.build')
local cargo = require('lib.cargo')
local change = require('lib.change')
local claim = require('lib.claim')
local defaults = require('lib.defaults')
local hand_in = require('lib.hand_in')
local layout = require('lib.layout')
local lease = require('lib.lease')
local num = require('lib.num')
local outbox = require('lib.outbox')
local turns = require('lib.turns')
local upkeep = require('lib.upkeep')
local wake = require('lib.wake')

local MAX = 256
local DAY_MS = 86400000

local function read_call(map)
  return {
    worker = arg.text(map, 'worker'),
    turn = arg.int(map, 'turn', 1, num.MAX),
    nonce = arg.text(map, 'nonce'),
    want = arg.int(map, 'want', 0, MAX),
    lease_ms = arg.int(map, 'lease_ms', 1, DAY_MS),
    suspects = arg.int(map, 'suspects', 0, MAX),
    max_stalled = arg.int(map, 'max_stalled', 0, 1000),
    keep = {
      keep_completed = arg.maybe_text(map, 'keep_completed'),
      keep_failed = arg.maybe_text(map, 'keep_failed'),
      dead_letter = arg.maybe_text(map, 'dead_letter'),
    },
    is_repeat = map['repeat'],
  }
end

--- The reply of a repeated turn: its outcomes as they were, its claims as far as they are still this worker's.
local function again(root, now, stored, call)
  local goods = cargo.new()
  for _, id in ipairs(stored[3]) do
    if claim.add_again(goods, root, id, stored[2], call) then
      redis.call('ZREM', layout.index(root, 'waiting'), id)
      redis.call('ZREM', layout.index(root, 'suspects'), id)
    end
  end
  return cargo.reply(goods, { stored[1], stored[2], goods.claims, 0, 0, build.revision, 0, -1, now })
end

local function take(root, now, meta, call)
  if call.want == 0 or meta.paused then
    return '', cargo.new(), change.begin(root)
  end
  return claim.take(root, now, call, call.keep)
end

--- Pass the baton: another worker may have to take what this one leaves.
local function pass_on(root, call, taken, meta)
  local more = not meta.paused and taken >= call.want
    and redis.call('ZCARD', layout.index(root, 'waiting')) + redis.call('ZCARD', layout.index(root, 'suspects')) > 0
  if more then
    wake.push(root)
  end
  return more and 1 or 0
end

local function turn(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local call = read_call(map)
  local done = arg.list(map, 'done', MAX)
  local started = arg.runs(map, 'started', MAX, true)
  local stored, highest = turns.find(root, call.worker, call.turn)
  if stored then
    return again(root, now, stored, call)
  end
  local values = redis.call('HMGET', layout.meta(root), 'last_call', 'break_at', 'tick_at', 'paused', 'limits_version',
    'defaults')
  local meta = { last_call = values[1], break_at = values[2], tick_at = values[3], paused = values[4] }
  defaults.note(root, values[6], call.keep)
  lease.note_started(root, started, now)
  local codes = hand_in.run(root, now, done, call)
  upkeep.run(root, now, meta, call)
  local token, goods, tx = take(root, now, meta, call)
  local claims = goods.claims
  turns.store(root, call.worker, call.turn, highest, codes, token, claims)
  change.leave(tx)
  local more = pass_on(root, call, #claims, meta)
  local pending = outbox.is_pending(root, now)
  local next_ms = #claims < call.want and upkeep.next_ms(root, now) or 0
  local limits = num.of(values[5], 0)
  return cargo.reply(goods, { codes, token, claims, next_ms, more, build.revision, pending, limits, now })
end

return { run = turn, flags = { 'allow-oom' } }
