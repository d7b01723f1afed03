--- child_ended: a child of this parent has ended. The last one releases the parent; a failure may fail it. Where the
-- parent has ended before, what the child has used still counts in its sums, and in those of its own parents.
-- keys   1  root of the parent's queue
-- args   1  map {parent: str, key: str, policy: "fail" | "ignore" | "collect", state: str, end: json str,
--           error?: json str, usage?: {"tokens:CATEGORY" | "costs:NAME": int}, repeat?: bool}
--        or map {parent: str, late: str, usage}: more of a child that has ended, by a name that counts once
-- reply  1 noted, 0 noted before or the parent is gone or has no children that have not ended
-- error  ARG
-- cost   O(log n)
local arg = require('lib.arg')
local change = require('lib.change')
local defaults = require('lib.defaults')
local ending = require('lib.ending')
local family = require('lib.family')
local job = require('lib.job')
local late = require('lib.late')
local layout = require('lib.layout')
local num = require('lib.num')
local waits = require('lib.waits')

--- A failed child under the policy "fail": the parent fails now, or when it comes to wait.
local function fail_parent(root, id, record, text)
  if record.state == 'active' then
    redis.call('HSET', layout.job(root, id), 'child_failed', text)
    return
  end
  local tx = ending.begin(root, num.now(), defaults.read(root))
  local fields = { 'reason', 'child_failed' }
  ending.error(tx, id, record, fields, text, 'failed')
  ending.terminal(tx, id, record, job.index_of(record), 'failed', fields)
  ending.commit(tx)
end

--- Let a parent go on whose last child has ended.
local function release(root, id, record)
  local is_waiting = record.state == 'waiting_children' or waits.is_for_children(record)
  if not is_waiting or num.of(record.pending, 0) > 0 then
    return
  end
  local tx = change.begin(root)
  change.move(tx, id, record.state, job.waiting_index(record), record.place, {})
  change.note(tx, 'waiting', id)
  change.commit(tx)
end

--- Note the end, and what it means for the parent; answers 1, or 0 if it was noted before.
local function apply(root, id, record, child, is_repeat)
  local is_new = family.note_end(root, id, record, child.key, child.text, child.usage)
  if not child.fails then
    release(root, id, record)
  elseif is_new or is_repeat then
    fail_parent(root, id, record, child.error)
  end
  return is_new and 1 or 0
end

local function is_removed(root, id)
  return redis.call('HEXISTS', layout.job(root, id), 'removed') == 1
end

--- The parent has ended: what its child used counts all the same.
local function apply_late(root, id, record, child)
  local is_awaited = num.of(record.pending, 0) > 0 or record.counted == child.key .. ':end' -- by a call that broke off
  if not is_awaited or is_removed(root, id) then
    return 0
  end
  return late.ended(root, id, record, child) and 1 or 0
end

local function apply_more(root, id, name, amounts)
  local record = job.read(root, id, ending.FIELDS)
  if not record or is_removed(root, id) then
    return 0
  end
  return late.used(root, id, record, name, amounts, job.TERMINAL[record.state]) and 1 or 0
end

local function child_ended(keys, args)
  local root, map = keys[1], arg.map(args)
  local id, is_repeat = arg.text(map, 'parent'), map['repeat']
  if arg.maybe_text(map, 'late') then
    return apply_more(root, id, map.late, arg.amounts(map, 'usage'))
  end
  local child = { key = arg.text(map, 'key'), text = arg.text(map, 'end'), usage = arg.amounts(map, 'usage') }
  local policy = arg.maybe_text(map, 'policy')
  child.error = arg.maybe_text(map, 'error') or child.text
  child.fails = arg.text(map, 'state') ~= 'completed' and policy == 'fail'
  local record = job.read(root, id, ending.FIELDS)
  if is_repeat and record and record.state ~= 'waiting_children' then
    ending.sweep(root, 'waiting_children', id) -- where a call that broke off may have left it
    if record.state ~= 'suspended' then
      ending.sweep(root, 'suspended', id)
    end
  end
  if not record then
    return 0
  elseif job.TERMINAL[record.state] then
    return apply_late(root, id, record, child)
  end
  return apply(root, id, record, child, is_repeat)
end

return { run = child_ended, flags = { 'allow-oom' } }
