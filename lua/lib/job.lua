--- job: reading a job, and what its fields say about where it belongs.
local layout = require('lib.layout')

local job = {}

job.TERMINAL = { completed = true, failed = true, cancelled = true }

--- The state a job has while it is in an index.
function job.state_of(index)
  return index == 'suspects' and 'waiting' or index
end

--- Which of the two waiting indexes a job belongs in.
function job.waiting_index(record)
  return (tonumber(record.stalled or 0) >= 1 or tonumber(record.lost or 0) >= 2) and 'suspects' or 'waiting'
end

--- Which index a job is in, by its record (state, stalled, lost).
function job.index_of(record)
  return record.state == 'waiting' and job.waiting_index(record) or record.state
end

--- Read some fields of a job into a table; nil if there is no such job. `fields` must begin with 'state'.
function job.read(root, id, fields)
  local values = redis.call('HMGET', layout.job(root, id), unpack(fields))
  if not values[1] then
    return nil
  end
  local record = {}
  for i = 1, #fields do
    if values[i] then -- an absent field stays nil: a table with few entries is cheaper
      record[fields[i]] = values[i]
    end
  end
  return record
end

--- The `satellites` text with one more name in it.
function job.with_satellite(text, name)
  if not text then
    return name
  end
  if string.find(',' .. text .. ',', ',' .. name .. ',', 1, true) then
    return text
  end
  return text == '' and name or text .. ',' .. name
end

function job.has_satellite(text, name)
  return text and string.find(',' .. text .. ',', ',' .. name .. ',', 1, true) ~= nil
end

return job
