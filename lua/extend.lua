-- extend: hold more for requests that run past what they hold: every line to the amount asked, or nothing. Many a call.
--
-- KEYS, per request: account hash, holds hash, leases zset (not touched), events stream (not touched)
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request: msgpack [request_id, then per line: name, maximum, amount]; the amount is all that shall be
--   held of the line from then on
-- Reply: [now µs, then per request one of]
--   1       extended, or held already
--   0       refused: some line has no room for what is missing; nothing was taken
--   2       gone: there is no hold; settled or reaped, and not made again
--   3       missing: hydrate the account first
--   "text"  this request failed; nothing was taken
-- Invariants: all or nothing; idempotent by request and amount; a hold never shrinks; a count moves only while its
--   window is the one held in; a line whose window has rolled has room.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, PAIR_BYTES = 2, 3, 6, 5, 1
local REFUSED, EXTENDED, GONE, MISSING = 0, 1, 2, 3

-- Names of the fields to read: version, then start and used of each line held.
local function fields_of(hold)
  local fields = {'v'}
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    fields[#fields + 1] = 's:' .. hold[i]
    fields[#fields + 1] = 'u:' .. hold[i]
  end
  return fields
end

-- Raises the hold's lines in place; returns the account's fields as they shall be, or nil where a line has no room.
local function raised(call, hold, fields, state)
  local asked, writes = {}, {}
  for i = FIRST, #call, WIDTH do
    asked[call[i]] = {call[i + 1], call[i + 2]}
  end
  for i = HOLD_FIRST, #hold, HOLD_WIDTH do
    local at = 2 + (i - HOLD_FIRST) / HOLD_WIDTH * 2
    local line = asked[hold[i]]
    local more = line and line[2] - hold[i + 4] or 0
    if more > 0 then
      if tonumber(state[at]) == hold[i + 1] then
        local used = (tonumber(state[at + 1]) or 0) + more
        if used > line[1] then
          return nil
        end
        writes[#writes + 1], writes[#writes + 2] = fields[at + 1], used
      end
      hold[i + 4] = line[2]
    end
  end
  return writes
end

local function extend(account, holds, packed)
  local call = cmsgpack.unpack(packed)
  local read = redis.call('HGET', holds, call[1])
  if not read then
    return GONE
  end
  local after_call, hold = cmsgpack.unpack_one(read, PAIR_BYTES)
  local fields = fields_of(hold)
  local state = redis.call('HMGET', account, unpack(fields))
  if not state[1] then
    return MISSING
  end
  local writes = raised(call, hold, fields, state)
  if not writes then
    return REFUSED
  end
  local rest = after_call > 0 and read:sub(after_call + 1) or ''
  redis.call('HSET', holds, call[1], read:sub(1, PAIR_BYTES) .. cmsgpack.pack(hold) .. rest)
  if #writes > 0 then
    redis.call('HSET', account, unpack(writes))
  end
  return EXTENDED
end

local replies = {now_us}
for i = 1, #ARGV - 1 do
  local k = i * 4
  local ok, reply = pcall(extend, KEYS[k - 3], KEYS[k - 2], ARGV[i + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
