--- key_names: the layout spelled out, for the test that compares it with _keys.py.
-- keys   1  root of the queue
-- args   none
-- reply  [name, key…] with id "ID", worker "W", minute and hour 7
-- error  none
-- cost   O(1)
local layout = require('lib.layout')

local function key_names(keys)
  local root, names = keys[1], {}
  local function add(name, key)
    names[#names + 1] = name
    names[#names + 1] = key
  end
  for _, index in ipairs(layout.INDEXES) do
    add('index:' .. index, layout.index(root, index))
  end
  for _, name in ipairs(layout.SATELLITES) do
    add('satellite:' .. name, layout.satellite(root, 'ID', name))
  end
  local singles = {
    'meta', 'wake', 'workers', 'expiring', 'events', 'outbox', 'outbox_stuck', 'outbox_due', 'models', 'news',
  }
  for _, name in ipairs(singles) do
    add(name, layout[name](root))
  end
  add('job', layout.job(root, 'ID'))
  add('inbox', layout.inbox(root, 'W'))
  add('turn', layout.turn(root, 'W'))
  add('removed', layout.removed(root, 7))
  add('minute', layout.minute(root, 7))
  add('hour', layout.hour(root, 7))
  add('generation', layout.generation(root, 'main/b'))
  return names
end

return { run = key_names, flags = { 'no-writes' } }
