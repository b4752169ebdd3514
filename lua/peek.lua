-- peek: an account's live state, read only.
--
-- KEYS: account hash
-- ARGV: none
-- Reply: the hash's fields and values in turn, [] where the account has no state
-- Invariants: changes nothing.

if not redis.call('HGET', KEYS[1], 'v') then
  return {}
end
return redis.call('HGETALL', KEYS[1])
