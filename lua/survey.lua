-- survey: an account's live state and its live holds, as of one moment. Read only.
--
-- KEYS: account hash, holds hash
-- ARGV[1]: account_id
-- ARGV[2]: now in µs, 0 = the server's TIME
-- Reply: [now µs, the hash's fields and values in turn ([] where the account has no state), the account's holds as they
--   are kept]
-- Invariants: changes nothing.

local PAIR_BYTES = 1

local now_us = tonumber(ARGV[2])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end

local held = {}
for _, packed in ipairs(redis.call('HVALS', KEYS[2])) do
  local _, hold = cmsgpack.unpack_one(packed, PAIR_BYTES)
  if hold[2] == ARGV[1] then
    held[#held + 1] = packed
  end
end

local state = redis.call('HGET', KEYS[1], 'v') and redis.call('HGETALL', KEYS[1]) or {}
return {now_us, state, held}
