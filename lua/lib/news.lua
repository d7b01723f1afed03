--- news: one message per call with the ids, by line, of the jobs that have changed or have ended; behind an empty line,
-- of those that only have new chunks.
-- The channel lies in the queue's slot, so that a cluster uses sharded publish.
local layout = require('lib.layout')

local news = {}

local command

local function publish_command()
  if not command then
    local info = redis.call('INFO', 'cluster')
    command = string.find(info, 'cluster_enabled:1', 1, true) and 'SPUBLISH' or 'PUBLISH'
  end
  return command
end

function news.publish(root, ids)
  if #ids > 0 then
    redis.call(publish_command(), layout.news(root), table.concat(ids, '\n'))
  end
end

function news.chunks(root, ids)
  if #ids > 0 then
    redis.call(publish_command(), layout.news(root), '\n' .. table.concat(ids, '\n'))
  end
end

return news
