-- settle: replace a hold by what was really used, free its slot, and put its usage event on the stream. Many a call.
--
-- KEYS, per request: account hash, holds hash, leases zset, events stream
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, again (0 or 1), admitted ms (0 unknown), then per line: name, window
--   start s, amount], and the event's bytes; an empty event only gives back a hold whose request never ran
-- Reply: [now µs, then per request one of]
--   1       the hold was replaced
--   0       there was no hold (its state was lost): charged in full, or, with again = 1, taken for settled before; where
--           the state was rebuilt after the request was admitted, only the ledger can tell: the state is dropped
--   "text"  this request failed
-- Invariants: a count moves only while its window is the one held in; u >= 0; the event is written in every case, and
--   the ledger takes each request id once; a missing account is marked (field x), never made anew.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, MARK_TTL_S = 4, 3, 6, 5, 86400

-- What was held, by limit name: {start s, amount}.
local function held_lines(packed)
  local held, hold = {}, cmsgpack.unpack(packed)
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    held[hold[i]] = {hold[i + 1], hold[i + 4]}
  end
  return held
end

-- Names of the fields to read: version, running, when hydrated, then start and used of each line.
local function fields_of(call)
  local fields = {'v', 'n', 'h'}
  for i = FIRST, #call, WIDTH do
    fields[#fields + 1] = 's:' .. call[i]
    fields[#fields + 1] = 'u:' .. call[i]
  end
  return fields
end

-- The account's fields as they shall be, in turn: name, value.
local function charged(call, held, fields, state)
  local writes = {}
  if held then
    writes = {'n', math.max(0, (tonumber(state[2]) or 0) - 1)}
  end
  for i = FIRST, #call, WIDTH do
    local at = 4 + (i - FIRST) / WIDTH * 2
    local line = held and held[call[i]] or {call[i + 1], 0}
    if tonumber(state[at]) == line[1] then
      writes[#writes + 1] = fields[at + 1]
      writes[#writes + 1] = math.max(0, (tonumber(state[at + 1]) or 0) - line[2] + call[i + 2])
    end
  end
  return writes
end

-- Reads come first and the event before all other writes: what fails has changed nothing, or has its event written.
local function settle(account, holds, leases, events, packed, event)
  local call = cmsgpack.unpack(packed)
  local id, again, admitted_ms = call[1], call[2], call[3]
  local hold = redis.call('HGET', holds, id)
  local fields = fields_of(call)
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = event ~= '' and redis.call('XADD', events, '*', 'e', event)
  local rebuilt = admitted_ms > 0 and (tonumber(state[3]) or 0) > admitted_ms
  if entry and state[1] and not hold and again == 1 and rebuilt then
    redis.call('DEL', account)
    state = {}
  end
  local writes = {}
  if state[1] and (hold or again == 0) then
    writes = charged(call, hold and held_lines(hold), fields, state)
  elseif entry and not state[1] then
    writes = {'x', entry}
  end
  if #writes > 0 then
    redis.call('HSET', account, unpack(writes))
  end
  if not state[1] then
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  if hold then
    redis.call('HDEL', holds, id)
    redis.call('ZREM', leases, id)
  end
  return hold and 1 or 0
end

local replies = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local k = i * 4
  local ok, reply = pcall(settle, KEYS[k - 3], KEYS[k - 2], KEYS[k - 1], KEYS[k], ARGV[i * 2], ARGV[i * 2 + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
