-- Records that failed after their effects: no longer scored but dead letters, once each. A redelivery finds them dead.
-- KEYS: marks, seen, outcomes (as of guard.lua).   ARGV[1]: msgpack { { place, outcome that was counted, why }... }
local places = cmsgpack.unpack(ARGV[1])
for _, entry in ipairs(places) do
  local field = 'dead:' .. entry[1]
  if not redis.call('HGET', KEYS[2], field) and not redis.call('HGET', KEYS[2] .. ':old', field) then
    redis.call('HSET', KEYS[2], field, entry[3])
    redis.call('HINCRBY', KEYS[3], entry[2], -1)
    redis.call('HINCRBY', KEYS[3], 'dead_letter', 1)
  end
end
return 1
