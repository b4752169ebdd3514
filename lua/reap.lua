-- reap: settle holds whose lease ended, as their gateway died: at what it last told, never at nothing. Many a call.
--
-- KEYS, per request: account hash, holds hash, leases zset, events stream, marker of the reaped
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, then per line: name, amount], worked out from the hold; and the hold
--   as it was read for that. A line left out stays charged as it was held
-- Reply: [now µs, then per request one of]
--   1       reaped
--   0       left alone: its lease runs again, it was renewed since it was read, or it is gone
--   "text"  this request failed
-- Invariants: never before the lease's end; counts, running slot, event and marker move together, once for each hold; a
--   count moves only while its window is the one held in; u >= 0; a missing account is marked (field x), not made anew.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, PAIR_BYTES, MARK_TTL_S, MARKER_TTL_S = 2, 2, 6, 5, 1, 86400, 86400

-- Names of the fields to read: version, running, then start and used of each line held.
local function fields_of(hold)
  local fields = {'v', 'n'}
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    fields[#fields + 1] = 's:' .. hold[i]
    fields[#fields + 1] = 'u:' .. hold[i]
  end
  return fields
end

-- The account's fields as they shall be, in turn: name, value.
local function charged(call, hold, fields, state)
  local amounts = {}
  for i = FIRST, #call, WIDTH do
    amounts[call[i]] = call[i + 1]
  end
  local writes = {'n', math.max(0, (tonumber(state[2]) or 0) - 1)}
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    local at = 3 + (i - HOLD_FIRST) / HOLD_WIDTH * 2
    local amount = amounts[hold[i]]
    if amount and tonumber(state[at]) == hold[i + 1] then
      writes[#writes + 1] = fields[at + 1]
      writes[#writes + 1] = math.max(0, (tonumber(state[at + 1]) or 0) - hold[i + 4] + amount)
    end
  end
  return writes
end

local function reap(account, holds, leases, events, marker, packed, read)
  local call = cmsgpack.unpack(packed)
  local id = call[1]
  local ends_us = tonumber(redis.call('ZSCORE', leases, id) or nil)
  if not ends_us or ends_us > now_us or redis.call('HGET', holds, id) ~= read then
    return 0
  end
  local after_call, hold = cmsgpack.unpack_one(read, PAIR_BYTES)
  local fields = fields_of(hold)
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = after_call > 0 and redis.call('XADD', events, '*', 'e', read:sub(after_call + 1))
  if state[1] then
    redis.call('HSET', account, unpack(charged(call, hold, fields, state)))
  elseif entry then
    redis.call('HSET', account, 'x', entry)
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  redis.call('SET', marker, read, 'EX', MARKER_TTL_S)
  redis.call('HDEL', holds, id)
  redis.call('ZREM', leases, id)
  return 1
end

local replies = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local k = i * 5
  local ok, reply =
    pcall(reap, KEYS[k - 4], KEYS[k - 3], KEYS[k - 2], KEYS[k - 1], KEYS[k], ARGV[i * 2], ARGV[i * 2 + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
