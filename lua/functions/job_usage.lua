--- job_usage: book what one model call of a job has used. The one write that is taken without a current token.
-- keys   1  root of the queue
-- args   1  map {id, call: str, model: str, tokens: {category: int}, costs: {name: nano int}, entry: json str,
--           event?: json str (what the event tells; default: the entry)}
-- reply  1 booked, 0 booked before
-- error  ARG GONE
-- cost   O(categories)
local arg = require('lib.arg')
local event = require('lib.event')
local job = require('lib.job')
local num = require('lib.num')
local reply = require('lib.reply')
local usage = require('lib.usage')

local function job_usage(keys, args)
  local root, map = keys[1], arg.map(args)
  local id = arg.text(map, 'id')
  local report = {
    call = arg.text(map, 'call'),
    model = arg.text(map, 'model'),
    entry = arg.text(map, 'entry'),
    tokens = arg.amounts(map, 'tokens'),
    costs = arg.amounts(map, 'costs'),
  }
  local told = arg.maybe_text(map, 'event') or report.entry
  local record = job.read(root, id, { 'state', 'satellites', 'removed' })
  if not record or record.removed then
    reply.gone(id)
  end
  if not usage.book(root, id, record, report, num.now()) then
    return 0
  end
  event.append(root, { 'usage', id, event.MORE, told })
  return 1
end

return { run = job_usage, flags = { 'allow-oom' } }
