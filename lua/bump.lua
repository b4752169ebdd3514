-- bump: tell that an account's entitlements are at a version, so that whoever knows an older one is answered stale.
--
-- KEYS: account hash
-- ARGV[1]: version
-- Reply: 1 raised, 0 left (no state, or as new already)
-- Invariants: never moves back; never makes a state.

local known = tonumber(redis.call('HGET', KEYS[1], 'v'))
if not known or known >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'v', ARGV[1])
return 1
