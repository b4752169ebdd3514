-- hydrate: create an account's state from what the ledger knows, unless it exists by now.
--
-- KEYS: account hash, holds hash, leases zset (not touched), events stream (not touched), the partition's era
-- ARGV[1]: msgpack [account_id, version, expires s, mark, then per limit: name, window start s, used]
-- ARGV[2]: what the era is called if it begins now: a name never used before
-- Reply: one of
--   [1, era]  created, or there already
--   [0]       usage was settled since the mark was taken, so that the ledger has to be read again
-- Invariants: written only if absent; live holds are counted in again; running = live holds; a count is that of the
--   latest window that is held in; nobody is admitted in a partition that has no era.

local call = cmsgpack.unpack(ARGV[1])
local account_id, version, expires_s, mark = call[1], call[2], call[3], call[4]
local FIRST, WIDTH, HOLD_FIRST, HOLD_WIDTH, PAIR_BYTES = 5, 3, 6, 5, 1

local state = redis.call('HMGET', KEYS[1], 'v', 'x')
if state[1] then
  return {1, redis.call('GET', KEYS[5]) or ''}
end
if (state[2] or '') ~= mark then
  return {0}
end

local used, running = {}, 0
for i = FIRST, #call, WIDTH do
  used[call[i]] = {call[i + 1], call[i + 2]}
end
for _, packed in ipairs(redis.call('HVALS', KEYS[2])) do
  local _, hold = cmsgpack.unpack_one(packed, PAIR_BYTES)
  if hold[2] == account_id then
    running = running + 1
    for i = HOLD_FIRST, #hold, HOLD_WIDTH do
      local line = used[hold[i]]
      local start, amount = hold[i + 1], hold[i + 4]
      if line and line[1] == start then
        line[2] = line[2] + amount
      elseif line and line[1] < start then
        line[1], line[2] = start, amount
      end
    end
  end
end

local writes = {'v', version, 'n', running}
for name, line in pairs(used) do
  local w = #writes
  writes[w + 1], writes[w + 2], writes[w + 3], writes[w + 4] = 's:' .. name, line[1], 'u:' .. name, line[2]
end
redis.call('SET', KEYS[5], ARGV[2], 'NX')
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(writes))
redis.call('EXPIREAT', KEYS[1], expires_s)
return {1, redis.call('GET', KEYS[5])}
