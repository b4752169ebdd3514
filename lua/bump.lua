-- bump: tell that an account's entitlements are at a version, so that whoever knows an older one is answered stale.
--
-- KEYS: account hash
-- ARGV[1]: version
-- Reply: 1 raised; 0 left as it is, as new already; 2 no state: a hydration under way is told to start again
-- Invariants: never moves back; never makes a state.

local MARK_TTL_S = 86400

local known = redis.call('HGET', KEYS[1], 'v')
if not known then
  redis.call('HSET', KEYS[1], 'x', 'version ' .. ARGV[1])
  redis.call('EXPIRE', KEYS[1], MARK_TTL_S)
  return 2
end
if tonumber(known) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[1])
return 1
