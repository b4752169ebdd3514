-- late: settle a request without a hold: reaped, settled before, or lost with the server's memory. Many a call.
--
-- KEYS, per request: account hash, holds hash (not touched), leases zset (not touched), events stream, marker of the
--   reaped, the partition's era
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, again (0 or 1), era it was admitted in ('' unknown), then per line:
--   name, window start s, amount], and the event's bytes, empty for a request that never ran
-- Reply: [now µs, then per request one of]
--   [marker]  it was reaped, and nothing was done: correct.lua makes up for the difference
--   1         charged in full
--   0         with again = 1, taken for settled before; where the server lost its memory since the request was admitted,
--             only the ledger can tell: the state is dropped. So it is where the account counts in an earlier window
--   "text"    this request failed
-- Invariants: a count moves only while its window is the line's own; u >= 0; the event is written unless the request
--   was reaped, and the ledger takes each request id once; a missing account is marked (field x), never made anew.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, MARK_TTL_S = 4, 3, 86400

-- Names of the fields to read: version, then start and used of each line.
local function fields_of(call)
  local fields = {'v'}
  for i = FIRST, #call, WIDTH do
    fields[#fields + 1] = 's:' .. call[i]
    fields[#fields + 1] = 'u:' .. call[i]
  end
  return fields
end

-- The account's fields as they shall be, in turn: name, value.
local function charged(call, fields, state)
  local writes = {}
  for i = FIRST, #call, WIDTH do
    local at = 2 + (i - FIRST) / WIDTH * 2
    if tonumber(state[at]) == call[i + 1] then
      writes[#writes + 1] = fields[at + 1]
      writes[#writes + 1] = math.max(0, (tonumber(state[at + 1]) or 0) + call[i + 2])
    end
  end
  return writes
end

-- Whether a line's window begins later than the one that the account counts in, as after a clock that stepped back.
local function ahead(call, state)
  for i = FIRST, #call, WIDTH do
    local start = tonumber(state[2 + (i - FIRST) / WIDTH * 2])
    if start and start < call[i + 1] then
      return true
    end
  end
  return false
end

local function late(account, events, marker, era, packed, event)
  local call = cmsgpack.unpack(packed)
  local again, admitted_era = call[2], call[3]
  local reaped = redis.call('GET', marker)
  if reaped then
    return {reaped}
  end
  local fields = fields_of(call)
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = event ~= '' and redis.call('XADD', events, '*', 'e', event)
  local unsure = again == 1 and redis.call('GET', era) ~= admitted_era or again == 0 and ahead(call, state)
  if entry and state[1] and unsure then
    redis.call('DEL', account)
    state = {}
  end
  local writes = {}
  if state[1] and again == 0 then
    writes = charged(call, fields, state)
  elseif entry and not state[1] then
    writes = {'x', entry}
  end
  if #writes > 0 then
    redis.call('HSET', account, unpack(writes))
  end
  if not state[1] then
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  return 1 - again
end

local replies = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local k = i * 6
  local ok, reply = pcall(late, KEYS[k - 5], KEYS[k - 2], KEYS[k - 1], KEYS[k], ARGV[i * 2], ARGV[i * 2 + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
