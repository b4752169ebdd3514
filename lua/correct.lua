-- correct: make up for the difference between what a reap charged and what turned out to be true. Many a call.
--
-- KEYS, per request: account hash, holds hash (not touched), leases zset (not touched), events stream, marker of the
--   reaped
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request two: msgpack [request_id, then per line: name, window start s, difference], and the
--   correction's event, empty where the reap wrote none
-- Reply: [now µs, then per request one of]
--   1       corrected
--   0       there is no marker: it was corrected before
--   "text"  this request failed
-- Invariants: once for each reap, as the marker goes with it; a count moves only while its window is the line's own;
--   u >= 0; a missing account is marked (field x), never made anew.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local FIRST, WIDTH, MARK_TTL_S = 2, 3, 86400

local function correct(account, events, marker, packed, event)
  local call = cmsgpack.unpack(packed)
  if redis.call('EXISTS', marker) == 0 then
    return 0
  end
  local fields = {'v'}
  for i = FIRST, #call, WIDTH do
    fields[#fields + 1] = 's:' .. call[i]
    fields[#fields + 1] = 'u:' .. call[i]
  end
  local state = redis.call('HMGET', account, unpack(fields))
  local entry = event ~= '' and redis.call('XADD', events, '*', 'e', event)
  for i = FIRST, #call, WIDTH do
    local at = 2 + (i - FIRST) / WIDTH * 2
    if state[1] and tonumber(state[at]) == call[i + 1] then
      redis.call('HSET', account, fields[at + 1], math.max(0, (tonumber(state[at + 1]) or 0) + call[i + 2]))
    end
  end
  if entry and not state[1] then
    redis.call('HSET', account, 'x', entry)
    redis.call('EXPIRE', account, MARK_TTL_S)
  end
  redis.call('DEL', marker)
  return 1
end

local replies = {now_us}
for i = 1, (#ARGV - 1) / 2 do
  local k = i * 5
  local ok, reply = pcall(correct, KEYS[k - 4], KEYS[k - 1], KEYS[k], ARGV[i * 2], ARGV[i * 2 + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
