--- line: the order of waiting jobs. Score = priority x 2^41 + 2^40 + sequence (LIFO: - sequence),
-- exact for 2^40 adds; kept on the job as `place`, so that a job that comes back keeps it.
local line = {}

local BAND = 2199023255552 -- 2^41
local MIDDLE = 1099511627776 -- 2^40

function line.place(priority, sequence, lifo)
  if lifo then
    return priority * BAND + MIDDLE - sequence
  end
  return priority * BAND + MIDDLE + sequence
end

--- The same position under another priority.
function line.priority(place)
  return math.floor(place / BAND)
end

return line
