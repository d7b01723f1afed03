--- ledger_wake: whatever makes room in a budget leaves an unpark in the outbox for as many waiters as fit, in order, in
-- the same call. Each wake has a new generation: a job whose refusal was older, and which is only now being parked,
-- finds that it has been overtaken.
local budget = require('lib.ledger_budget')
local ledger = require('lib.ledger')
local num = require('lib.num')
local outbox = require('lib.outbox')
local waiters = require('lib.ledger_waiters')

local wake = {}

local MAX_WAKES = 1000 -- on their way at one time
local MAX_JOBS = 250 -- of an entry: what job_unpark takes
local EXPECTED_MS = 5000

--- What is left under each cap beside what is kept for those on their way.
local function room_of(root, id, spec, spend, expected)
  local taken, room = {}, {}
  for _, amounts in ipairs(waiters.amounts(root, id, expected)) do
    budget.add(taken, amounts, 1)
  end
  for name, cap in pairs(spec.caps) do
    room[name] = cap - (spend.used[name] or 0) - (spend.held[name] or 0) - (taken[name] or 0)
  end
  return room
end

--- Does it fit: 'yes', 'no', or 'never' (it asks for more than the whole cap: it must not hold up the others).
local function fits(spec, room, amounts)
  local answer = 'yes'
  for name, left in pairs(room) do
    local asked = amounts[name] or 0
    if asked > spec.caps[name] then
      return 'never'
    end
    answer = asked > left and 'no' or answer
  end
  return answer
end

local function choose(root, now, id, spec, spend)
  local members, expected = waiters.heads(root, now, id, MAX_WAKES)
  local room, chosen, most = room_of(root, id, spec, spend, expected), {}, MAX_WAKES - #expected
  for i, amounts in ipairs(waiters.amounts(root, id, members)) do
    local answer = fits(spec, room, amounts)
    if answer == 'no' or #chosen >= most then
      break
    elseif answer == 'yes' then
      for name in pairs(room) do
        room[name] = room[name] - (amounts[name] or 0)
      end
      chosen[#chosen + 1] = members[i]
    end
  end
  return chosen
end

--- Leave the unparks of the chosen, an entry per queue and so many jobs, and expect them.
local function send(root, now, id, generation, chosen)
  local queues, expected, sent = {}, {}, {}
  local function flush(queue)
    local jobs = table.concat(queues[queue], '\n')
    local entry = redis.call('XADD', ledger.key(root, 'outbox'), '*', 'queue', queue, 'on', id,
      'generation', num.text(generation), 'jobs', jobs)
    sent[#sent + 1] = { entry, queue, id, generation, jobs }
    queues[queue] = nil
  end
  for _, member in ipairs(chosen) do
    local queue, job = waiters.parts(member)
    queues[queue] = queues[queue] or {}
    table.insert(queues[queue], job)
    if #queues[queue] == MAX_JOBS then
      flush(queue)
    end
    expected[#expected + 1] = now + EXPECTED_MS
    expected[#expected + 1] = member
  end
  for queue in pairs(queues) do
    flush(queue)
  end
  redis.call('ZADD', ledger.key(root, 'woken', id), unpack(expected))
  redis.call('ZREM', ledger.key(root, 'waiters', id), unpack(chosen))
  return sent
end

--- Wake who fits, or the first of all; answers the outbox entries: [entry, queue, budget, generation, jobs by line].
function wake.one(root, now, id, spec, spend, everyone)
  if redis.call('ZCARD', ledger.key(root, 'waiters', id)) == 0
    or outbox.is_full(root) then
    return {}
  end
  local chosen = everyone and waiters.heads(root, now, id, MAX_WAKES) or choose(root, now, id, spec, spend)
  if #chosen == 0 then
    return {}
  end
  spend.generation = spend.generation + 1
  local tx = ledger.begin(root, now)
  ledger.put(tx, budget.spend_key(root, id, spec.start), spend, budget.life(spec, spec.start, now), true)
  ledger.commit(tx)
  local sent = send(root, now, id, spend.generation, chosen)
  waiters.limit(root, id, budget.life(spec, spec.start, now))
  return sent
end

--- Wake in several budgets [{id, spec, spend}...], each once; answers all entries written.
function wake.all(root, now, freed)
  local sent, seen = {}, {}
  for i = #freed, 1, -1 do -- the last one has the latest sums
    local one = freed[i]
    if not seen[one[1]] then
      seen[one[1]] = true
      for _, entry in ipairs(wake.one(root, now, one[1], one[2], one[3])) do
        sent[#sent + 1] = entry
      end
    end
  end
  return sent
end

return wake
