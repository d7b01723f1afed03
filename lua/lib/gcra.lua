--- gcra: a rate as a leaking debt. Each unit adds `period`, each millisecond takes `limit` away: integers throughout.
-- No window of `period` ms admits more than limit + burst; a single ask above the burst passes only without debt.
local gcra = {}

function gcra.leak(debt, elapsed, limit)
  return math.max(0, debt - math.max(0, elapsed) * limit)
end

--- Milliseconds until `amount` fits: 0 if it fits now.
function gcra.wait(debt, amount, limit, period, burst)
  local over = debt + amount * period - math.max(burst, amount) * period
  return over > 0 and math.ceil(over / limit) or 0
end

return gcra
