--- defaults: what the workers of a queue say of jobs that end: retention, and the dead-letter queue. The last turn's
-- word is kept in `meta`, for the calls that end jobs on nobody's behalf.
local layout = require('lib.layout')

local defaults = {}

local NAMES = { 'keep_completed', 'keep_failed', 'dead_letter' }

--- Keep what a turn says; `known` is what is kept.
function defaults.note(root, known, said)
  local lines = {}
  for i, name in ipairs(NAMES) do
    lines[i] = said[name] or ''
  end
  local text = table.concat(lines, '\n')
  if text ~= (known or '\n\n') then
    redis.call('HSET', layout.meta(root), 'defaults', text)
  end
end

--- What was said last.
function defaults.read(root)
  local found, i = {}, 0
  for line in string.gmatch((redis.call('HGET', layout.meta(root), 'defaults') or '') .. '\n', '(.-)\n') do
    i = i + 1
    found[NAMES[i]] = line ~= '' and line or nil
  end
  return found
end

return defaults
