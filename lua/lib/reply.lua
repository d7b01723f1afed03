--- reply: error replies "CODE words". The codes are the keys of `CODES` in src/glidemq_core/_errors_wire.py.
local reply = {}

--- Leave the function with an error; only before its first write.
function reply.fail(code, words)
  error(redis.error_reply(code .. ' ' .. words))
end

function reply.gone(id)
  reply.fail('GONE', id)
end

function reply.stale(id)
  reply.fail('STALE', id)
end

function reply.state(id, state, wanted)
  reply.fail('STATE', id .. ' ' .. state .. ' ' .. wanted)
end

return reply
