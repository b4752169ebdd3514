-- settle: replace a hold by what was really used, free its slot, and put its usage event on the stream. Many a call.
--
-- KEYS, per request: account hash, holds hash, leases zset, events stream
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, again, era, then per line: name, window start s, amount], and
--   the event's bytes; an empty event only gives back a hold whose request never ran. The second and third field are
--   for late.lua, which takes the same
-- Reply: [now µs, then per request one of]
--   1       the hold was replaced
--   0       there is no hold, and nothing was done: late.lua knows what to do
--   "text"  this request failed
-- Invariants: a count moves only while its window is the one held in; u >= 0; where there was a hold, its event is
--   written; a missing account is marked (field x), never made anew.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, PAIR_BYTES, MARK_TTL_S = 4, 3, 6, 5, 1, 86400

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
local function charged(call, held, fields, state)
  local writes = {'n', math.max(0, (tonumber(state[2]) or 0) - 1)}
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

-- Reads come first and the event before all other writes: what fails has changed nothing, or has its event written.
local function settle(account, holds, leases, events, packed, event)
  local call = cmsgpack.unpack(packed)
  local hold = redis.call('HGET', holds, call[1])
  if not hold then
    return 0
  end
  local held, fields = held_lines(hold), fields_of(call)
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = event ~= '' and redis.call('XADD', events, '*', 'e', event)
  if state[1] then
    redis.call('HSET', account, unpack(charged(call, held, fields, state)))
  elseif entry then
    redis.call('HSET', account, 'x', entry)
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  redis.call('HDEL', holds, call[1])
  redis.call('ZREM', leases, call[1])
  return 1
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
