-- replay: settle what a gateway wrote to its journal while it could not reach the server. Many a call.
--
-- KEYS, per request: account hash, holds hash, leases zset, events stream, marker of the reaped, bits of the segment,
--   the partition's era
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, kind, era it was admitted in ('' unknown), number in its segment,
--   then per line: name, window start s, amount], and the event's bytes, empty for a request that never ran. Kinds:
--   0 admitted elsewhere, sent for the first time; 1 the same, perhaps sent before; 2 admitted here, and perhaps settled;
--   3 the difference to what its reap charged
-- Reply: [now µs, then per request one of]
--   [marker]  it was reaped, and nothing was done: send the difference
--   1         settled
--   0         replayed before
--   "text"    this request failed
-- Invariants: an entry counts once, as its bit is set with it; a hold is replaced, else the amounts are charged in full
--   (not of kind 2); a count moves only while its window is the line's own; u >= 0; where the server lost its memory since
--   one of kind 1 or 2 was admitted, or the account counts in an earlier window than a line's, only the ledger can tell:
--   the state is dropped; a missing account is marked (x).

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, PAIR_BYTES, MARK_TTL_S, BITS_TTL_S = 5, 3, 6, 5, 1, 86400, 604800
local FRESH, REPEATED, DIFFERENCE = 0, 2, 3

-- What was held, by limit name: {start s, amount}.
local function held_lines(packed)
  local held, _, hold = {}, cmsgpack.unpack_one(packed, PAIR_BYTES)
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    held[hold[i]] = {hold[i + 1], hold[i + 4]}
  end
  return held
end

-- Names of the fields to read: version, running, then start and used of each line.
local function fields_of(call)
  local fields = {'v', 'n'}
  for i = FIRST, #call, WIDTH do
    fields[#fields + 1] = 's:' .. call[i]
    fields[#fields + 1] = 'u:' .. call[i]
  end
  return fields
end

-- The account's fields as they shall be, in turn: name, value.
local function charged(call, hold, fields, state)
  local writes, held = {}, hold and held_lines(hold) or {}
  if hold then
    writes = {'n', math.max(0, (tonumber(state[2]) or 0) - 1)}
  elseif call[2] == REPEATED then
    return writes
  end
  for i = FIRST, #call, WIDTH do
    local at = 3 + (i - FIRST) / WIDTH * 2
    local line = held[call[i]] or {call[i + 1], 0}
    if tonumber(state[at]) == line[1] then
      writes[#writes + 1] = fields[at + 1]
      writes[#writes + 1] = math.max(0, (tonumber(state[at + 1]) or 0) - line[2] + call[i + 2])
    end
  end
  return writes
end

-- Whether only the ledger can tell what the account's counts have to be.
local function unsure(call, state, era)
  local lost = call[2] ~= FRESH and call[2] ~= DIFFERENCE and redis.call('GET', era) ~= call[3]
  for i = FIRST, #call, WIDTH do
    local start = tonumber(state[3 + (i - FIRST) / WIDTH * 2])
    lost = lost or (call[2] ~= REPEATED and start and start < call[i + 1])
  end
  return lost
end

local function replay(keys, packed, event)
  local account, holds, leases, events, marker, bits, era = unpack(keys)
  local call = cmsgpack.unpack(packed)
  local id, kind, number = call[1], call[2], call[4]
  if redis.call('GETBIT', bits, number) == 1 then
    return 0
  end
  local hold = redis.call('HGET', holds, id)
  local reaped = not hold and redis.call('GET', marker)
  if reaped and kind ~= DIFFERENCE then
    return {reaped}
  end
  local fields = fields_of(call)
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = event ~= '' and redis.call('XADD', events, '*', 'e', event)
  if entry and state[1] and not hold and unsure(call, state, era) then
    redis.call('DEL', account)
    state = {}
  end
  local writes = state[1] and charged(call, hold, fields, state) or (entry and not state[1] and {'x', entry}) or {}
  if #writes > 0 then
    redis.call('HSET', account, unpack(writes))
  end
  if not state[1] then
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  redis.call('HDEL', holds, id)
  redis.call('ZREM', leases, id)
  redis.call('DEL', marker)
  redis.call('SETBIT', bits, number, 1)
  redis.call('EXPIRE', bits, BITS_TTL_S)
  return 1
end

local replies = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local keys = {unpack(KEYS, i * 7 - 6, i * 7)}
  local ok, reply = pcall(replay, keys, ARGV[i * 2], ARGV[i * 2 + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
