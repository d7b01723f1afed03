--- event_read: the queue's events after an id. An entry is a list of (event, job id) pairs; a pair ("+", JSON) tells
-- more of the one before.
-- keys   1  root of the queue
-- args   1  map {after: str, limit: int}; after "" reads from the beginning, "$" only tells the newest id
-- reply  [first id kept or "", newest id or "", [[id, [event, job id…]]…]]
-- error  ARG
-- cost   O(limit); at most 1,000 entries
local arg = require('lib.arg')
local layout = require('lib.layout')
local reply = require('lib.reply')

local function id_at(key, command, from, to)
  local found = redis.call(command, key, from, to, 'COUNT', 1)[1]
  return found and found[1] or ''
end

local function event_read(keys, args)
  local key, map = layout.events(keys[1]), arg.map(args)
  local after, limit = arg.text(map, 'after'), arg.int(map, 'limit', 1, 1000)
  if after ~= '' and after ~= '$' and not string.find(after, '^%d+%-%d+$') then
    reply.fail('ARG', 'after not the id of an event')
  end
  local entries = {}
  if after ~= '$' then
    entries = redis.call('XRANGE', key, after == '' and '-' or '(' .. after, '+', 'COUNT', limit)
  end
  return { id_at(key, 'XRANGE', '-', '+'), id_at(key, 'XREVRANGE', '+', '-'), entries }
end

return { run = event_read, flags = { 'no-writes' } }
