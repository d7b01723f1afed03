--- ledger_memory: what texts of the ledger come to, so that the same ones are not unpacked by call after call. Only a
-- saving of time: a server that has forgotten it all, or another one, unpacks them.
local memory = {}

local MAX_PARSED = 1000
local MAX_WRITTEN = 1000

local parsed, parsed_size = {}, 0

--- `parse(text)`, remembered: the texts are few and the calls many. The answer is shared: nobody may change it.
function memory.parsed(text, parse)
  local found = parsed[text]
  if not found then
    parsed_size = parsed_size + 1
    if parsed_size > MAX_PARSED then
      parsed, parsed_size = {}, 1
    end
    found = parse(text)
    parsed[text] = found
  end
  return found
end

-- By key: the text that was written last, and the record it was made of.
local texts, records, written = {}, {}, 0

--- The record of a text that was read. It is handed out once: who changes it and does not write it spoils nothing.
function memory.take(key, text)
  local known = texts[key] == text and records[key]
  texts[key], records[key] = nil, nil
  return known or cmsgpack.unpack(text)
end

--- A record is about to be written: whatever was known of it is not to be relied on any more.
function memory.forget(key)
  texts[key], records[key] = nil, nil
end

--- A record has been written as `text`.
function memory.keep(key, text, record)
  written = written + 1
  if written > MAX_WRITTEN then
    texts, records, written = {}, {}, 1
  end
  texts[key], records[key] = text, record
end

return memory
