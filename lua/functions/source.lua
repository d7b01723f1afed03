--- source: which library this is.
-- keys   none
-- args   none
-- reply  [protocol, revision, hash of the text, "release" or "test"]
-- error  none
-- cost   O(1)
local build = require('lib.build')

local function source()
  return { build.protocol, build.revision, build.hash, build.kind }
end

return { run = source, flags = { 'no-writes' } }
