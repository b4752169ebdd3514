-- renew: a sign of life of requests that still run: their leases begin anew, at what was counted so far. Many a call.
--
-- KEYS, per request: account hash (not touched), holds hash, leases zset, events stream (not touched)
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request: a pair, of msgpack [request_id, lease_ms] and the event to be written should it be reaped
-- Reply: [now µs, then per request one of]
--   1       renewed
--   0       there is no hold: settled or reaped; it is not made again
--   "text"  this request failed
-- Invariants: a lease never moves back; what is held stays as it is.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local PAIR_BYTES = 1
local PAIR = '\146'

local function renew(holds, leases, packed)
  local after_call, call = cmsgpack.unpack_one(packed, PAIR_BYTES)
  local id, lease_ms = call[1], call[2]
  local hold = redis.call('HGET', holds, id)
  if not hold then
    return 0
  end
  local after_held = cmsgpack.unpack_one(hold, PAIR_BYTES)
  local held = hold:sub(PAIR_BYTES + 1, after_held > 0 and after_held or #hold)
  redis.call('HSET', holds, id, PAIR .. held .. packed:sub(after_call + 1))
  redis.call('ZADD', leases, 'XX', 'GT', now_us + lease_ms * 1000, id)
  return 1
end

local replies = {now_us}
for i = 1, #ARGV - 1 do
  local k = i * 4
  local ok, reply = pcall(renew, KEYS[k - 2], KEYS[k - 1], ARGV[i + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
