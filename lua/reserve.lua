-- reserve: hold every line of a request and a running slot, or take nothing and say why. Many requests a call.
--
-- KEYS, per request: account hash, holds hash, leases zset, events stream (not touched)
-- ARGV[1]: now in µs, 0 = the server's TIME
-- ARGV[2..], per request: a pair, of msgpack [request_id, account_id, version, concurrency (-1 unbounded), lease_ms,
--   then per line: name, window start s, window end s, maximum, amount] and, if given, the event to be written should
--   the hold be reaped; the pair is kept as the hold
-- Reply: [now µs, then per request one of]
--   [1, running, used of each line...]  admitted; counts include this hold
--   [0, running, used of each line...]  refused; counts as they stand
--   [2, version]                        stale: the account's entitlements are at this version
--   [3]                                 missing: hydrate the account first; also where a limit is new to it, as only
--                                       the ledger knows what was used of its window: the state is dropped
--   [4, start s]                        skewed: a line's window is not the one running now; start: of the window that the
--                                       account counts in where the clock has moved back from it since, else 0
--   "text"                              this request failed; nothing was taken
-- Invariants: all or nothing; idempotent by request_id; a window's start never moves back.

local now_us = tonumber(ARGV[1])
if now_us == 0 then
  local time = redis.call('TIME')
  now_us = time[1] * 1000000 + time[2]
end
local now_s = math.floor(now_us / 1000000)

local FIRST, WIDTH, GRACE_S, PAIR_BYTES = 6, 5, 86400, 1

-- Fields to read: version, running, then start and used of each line.
local function fields_of(call)
  local fields = {'v', 'n'}
  for i = FIRST, #call, WIDTH do
    fields[#fields + 1] = 's:' .. call[i]
    fields[#fields + 1] = 'u:' .. call[i]
  end
  return fields
end

local function reserve(account, holds, leases, packed)
  local after_call, call = cmsgpack.unpack_one(packed, PAIR_BYTES)
  local id, version, concurrency = call[1], call[3], call[4]
  local fields = fields_of(call)
  local state = redis.call('HMGET', account, unpack(fields))
  local known = tonumber(state[1])
  if not known then
    return {3}
  end
  if known > version then
    return {2, known}
  end
  local running = tonumber(state[2]) or 0
  local before, after = {0, running}, {1, running + 1}
  local writes = {'v', version, 'n', running + 1}
  local fits = concurrency < 0 or running < concurrency
  local rolled, moved, expires_s = false, false, 0
  for i = FIRST, #call, WIDTH do
    local start, finish, maximum, amount = call[i + 1], call[i + 2], call[i + 3], call[i + 4]
    local at = 3 + (i - FIRST) / WIDTH * 2
    local stored, used = tonumber(state[at]), tonumber(state[at + 1]) or 0
    if stored ~= start and stored and stored > now_s then
      return {4, stored}
    end
    if now_s >= finish or (now_s < start and stored ~= start) then
      return {4, 0}
    end
    if not stored then
      redis.call('DEL', account)
      return {3}
    end
    if stored < start then
      used, rolled = 0, true
    elseif stored > start then
      start, moved = stored, true
      call[i + 1] = stored
    end
    before[#before + 1], after[#after + 1] = used, used + amount
    fits = fits and used + amount <= maximum
    expires_s = math.max(expires_s, finish)
    local w = #writes
    writes[w + 1], writes[w + 2], writes[w + 3], writes[w + 4] = fields[at], start, fields[at + 1], used + amount
  end
  if known < version then
    redis.call('HSET', account, 'v', version)
  end
  if not fits then
    if redis.call('HEXISTS', holds, id) == 0 then
      return before
    end
    before[1] = 1
    return before
  end
  local hold = packed
  if moved then
    hold = packed:sub(1, PAIR_BYTES) .. cmsgpack.pack(call) .. (after_call > 0 and packed:sub(after_call + 1) or '')
  end
  if redis.call('HSETNX', holds, id, hold) == 0 then
    before[1] = 1
    return before
  end
  redis.call('ZADD', leases, now_us + call[5] * 1000, id)
  redis.call('HSET', account, unpack(writes))
  if rolled then
    redis.call('EXPIREAT', account, expires_s + GRACE_S, 'GT')
  end
  return after
end

local replies = {now_us}
for i = 1, #ARGV - 1 do
  local k = i * 4
  local ok, reply = pcall(reserve, KEYS[k - 3], KEYS[k - 2], KEYS[k - 1], ARGV[i + 1])
  if not ok then
    reply = type(reply) == 'table' and reply.err or tostring(reply)
  end
  replies[i + 1] = reply
end
return replies
