--- news: one message per call with the ids of the jobs that have new chunks or have ended.
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

return news
