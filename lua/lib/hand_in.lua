--- hand_in: the outcomes of a turn, each checked against its job before the first is applied.
local ending = require('lib.ending')
local job = require('lib.job')
local outcome = require('lib.outcome')

local hand_in = {}

--- Check one outcome against its job; answers its code and, when it is to be applied, the job's record.
local function judge(root, line, seen)
  local id, token = line[1], line[2]
  if seen[id] then
    return 'r'
  end
  seen[id] = true
  local record = job.read(root, id, ending.FIELDS)
  if not record then
    return 'g'
  end
  if record.token ~= token then
    return 's'
  end
  if record.state ~= 'active' then
    return 'a'
  end
  return 'o', record
end

--- Apply outcomes; answers a letter for each (see functions/turn.lua).
function hand_in.run(root, now, done, call)
  local codes, accepted, seen = {}, {}, {}
  for i, line in ipairs(done) do
    if not outcome.is_kind(line[3]) or type(line[4]) ~= 'number' then
      codes[i] = 'r'
    else
      local record
      codes[i], record = judge(root, line, seen)
      accepted[#accepted + 1] = record and { line, record }
    end
  end
  if #accepted > 0 then
    local tx = ending.begin(root, now, call.keep)
    for _, pair in ipairs(accepted) do
      outcome.apply(tx, pair[1][1], pair[2], pair[1])
    end
    ending.commit(tx)
  end
  return table.concat(codes)
end

return hand_in
