--- child_ended: a child of this parent has ended. The last one releases the parent; a failure may fail it.
-- keys   1  root of the parent's queue
-- args   1  map {parent: str, key: str, policy: "fail" | "ignore" | "collect", state: str, end: json str,
--           usage?: {"tokens:CATEGORY" | "costs:NAME": int}}
-- reply  1 noted, 0 noted before or the parent has ended or is gone
-- error  ARG
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local ending = require('lib.ending')
local family = require('lib.family')
local job = require('lib.job')
local layout = require('lib.layout')
local num = require('lib.num')

--- A failed child under the policy "fail": the parent fails now, or when it comes to wait.
local function fail_parent(root, id, record, text)
  if record.state == 'active' then
    redis.call('HSET', layout.job(root, id), 'child_failed', text)
    return
  end
  local tx = ending.begin(root, num.now())
  local fields = { 'reason', 'child_failed' }
  ending.error(tx, id, record, fields, text, 'failed')
  ending.terminal(tx, id, record, job.index_of(record), 'failed', fields)
  ending.commit(tx)
end

local function release(root, id, record)
  local tx = change.begin(root)
  change.move(tx, id, 'waiting_children', job.waiting_index(record), record.place, {})
  change.note(tx, 'waiting', id)
  change.commit(tx)
end

local function child_ended(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, key = arg.text(map, 'parent'), arg.text(map, 'key')
  local text, state, usage = arg.text(map, 'end'), arg.text(map, 'state'), arg.amounts(map, 'usage')
  local record = job.read(root, id, ending.FIELDS)
  if not record or job.TERMINAL[record.state] then
    return 0
  end
  if not family.note_end(root, id, record, key, text, usage) then
    return 0
  end
  if state ~= 'completed' and map.policy == 'fail' then
    fail_parent(root, id, record, text)
  elseif record.state == 'waiting_children' and record.pending <= 0 then
    release(root, id, record)
  end
  return 1
end

return { run = child_ended, flags = { 'allow-oom' } }
