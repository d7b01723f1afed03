--- ledger_lapse: end what a run has left open, for its owner is gone: calls that were sent become unverified spend,
-- the others nothing.
-- keys   1  root of the ledger
-- args   1  map {run: str}: the calls whose names are RUN/...
-- reply  packed [how many, 1 if there may be more, outbox entries as in ledger_settle]
-- error  ARG
-- cost   O(calls log n); at most 64
local arg = require('lib.arg')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local num = require('lib.num')
local wake = require('lib.ledger_wake')

local MAX = 64

local function ledger_lapse(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  local run = arg.text(map, 'run')
  -- '0' is the character after '/'.
  local first, last = '[' .. run .. '/', '(' .. run .. '0'
  local ids = redis.call('ZRANGEBYLEX', ledger.key(root, 'calls'), first, last, 'LIMIT', 0, MAX)
  local freed = {}
  for _, id in ipairs(ids) do
    for _, one in ipairs(calls.lapse(root, now, id)) do
      freed[#freed + 1] = one
    end
  end
  return cmsgpack.pack({ #ids, #ids == MAX and 1 or 0, wake.all(root, now, freed) })
end

return { run = ledger_lapse, flags = { 'allow-oom' } }
