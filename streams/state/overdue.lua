-- Labels that have waited a day for their payment: with account and terminal they count from their own time on, without
-- they are dead letters. Comes after payments.lua and labels.lua.
--
-- ARGV[1]: msgpack { prefix, now, outcomes = key, outboxes = { partition of the labels = key }, at_once }
local ctx = cmsgpack.unpack(ARGV[1])
local waiting = waiting_key(ctx.prefix)
local refs = redis.call('ZRANGEBYSCORE', waiting .. ':due', 0, ctx.now, 'LIMIT', 0, ctx.at_once)
local done = 0
for _, ref in ipairs(refs) do
  local label = cmsgpack.unpack(redis.call('HGET', waiting, ref))
  local dead = redis.call('HGET', waiting .. ':dead', ref)
  dead = dead and cmsgpack.unpack(dead)
  local outbox = dead and ctx.outboxes[tostring(dead.p)]
  local whole = label.a ~= '' and label.t ~= ''
  if whole or outbox then
    if whole then
      if label.v == 'fraud' then tell(ref, label.a, label.t, label.ts, label.ts, true) end
    else
      redis.call('RPUSH', outbox, dead.out)
      redis.call('HINCRBY', ctx.outcomes, 'scored', -1)
      redis.call('HINCRBY', ctx.outcomes, 'dead_letter', 1)
    end
    forget_waiting(ctx.prefix, ref)
    done = done + 1
  end
end
return done
