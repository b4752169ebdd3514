-- forbidden: which of the commands that the gateway and its scripts call this user may not run.
--
-- KEYS: any key of the gateway's; nothing is read or written
-- ARGV: none
-- Reply: the names of the commands that the user may not run, or not on that key; [] where all is well
-- Invariants: changes nothing.

local key = KEYS[1]
local needed = {
  {'EVAL', 'return 1', 1, key}, {'EVALSHA', '', 1, key}, {'TIME'}, {'PING'},
  {'GET', key}, {'SET', key, ''}, {'DEL', key}, {'EXISTS', key}, {'EXPIRE', key, 1}, {'EXPIREAT', key, 1},
  {'PEXPIRE', key, 1}, {'HGET', key, ''}, {'HGETALL', key}, {'HVALS', key}, {'HMGET', key, ''}, {'HSET', key, '', ''},
  {'HSETNX', key, '', ''}, {'HDEL', key, ''}, {'HEXISTS', key, ''}, {'ZADD', key, 1, ''}, {'ZREM', key, ''},
  {'ZSCORE', key, ''}, {'ZRANGEBYSCORE', key, 0, 1}, {'GETBIT', key, 0}, {'SETBIT', key, 0, 1},
  {'XADD', key, '*', '', ''}, {'XDEL', key, '1'}, {'XLEN', key},
  {'XRANGE', key, '-', '+'}, {'XREVRANGE', key, '+', '-'}, {'XACK', key, '', '1'},
  {'XAUTOCLAIM', key, '', '', 1, '0'}, {'XCLAIM', key, '', '', 0, '1'}, {'XGROUP', 'CREATE', key, '', '0'},
  {'XREADGROUP', 'GROUP', '', '', 'STREAMS', key, '>'},
}

local replies = {}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    replies[#replies + 1] = command[1]
  end
end
return replies
