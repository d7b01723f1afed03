--- ledger_charge: tell limiters what was used without having asked them, once per call.
-- keys   1  root of the ledger
-- args   1  map {call, limiters: as in ledger_reserve, tokens: {category: int}}
-- reply  packed ["ok"]; "already": this call is known
-- error  ARG
-- cost   O(limiters); at most 16
local ask = require('lib.ledger_ask')
local arg = require('lib.arg')
local calls = require('lib.ledger_call')
local ledger = require('lib.ledger')
local limiter = require('lib.ledger_limiter')
local look = require('lib.ledger_look')
local num = require('lib.num')

local function ledger_charge(keys, args)
  local root, map, now = keys[1], arg.map(args), num.now()
  map.ttl_ms = 1
  local call = ask.read(map)
  look.up(root, call)
  if call.record then
    return cmsgpack.pack({ 'already' })
  end
  local tx = ledger.begin(root, now)
  for _, line in ipairs(call.limiters) do
    limiter.advance(line.state, line.conf, now)
    limiter.charge(line.state, line.conf, line.amounts, 1)
    ledger.put(tx, line.key, line.state, limiter.life(line.state, line.conf, now, 0), true)
  end
  ledger.put(tx, calls.key(root, call.call), { state = 'settled', busy = {} }, ledger.DAY_MS)
  ledger.commit(tx)
  return cmsgpack.pack({ 'ok' })
end

return { run = ledger_charge, flags = { 'allow-oom' } }
