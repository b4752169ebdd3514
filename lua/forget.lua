-- forget: drop an account's state, as the ledger knows of usage that it may lack. The next request rebuilds it.
--
-- KEYS: account hash
-- ARGV[1]: mark, never used before: a hydration under way, which may have read the ledger too early, starts again
-- Reply: 1
-- Invariants: never makes a state; holds stay, and are counted again by the hydration.

local MARK_TTL_S = 86400

redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'x', ARGV[1])
redis.call('EXPIRE', KEYS[1], MARK_TTL_S)
return 1
