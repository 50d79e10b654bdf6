-- One transition of an alert, or a fresh detail for one that goes on: compare-and-set on the alert's version.
-- KEYS: alert, alerts, active, periods, outbox
--   alert: hash { record = JSON of its latest record on the topic, detail = JSON of what judged it, version, state,
--          entity, partition = partition of the signals that its outbox belongs to }
--   alerts: zset alert -> time of its last transition, ms      active: hash fingerprint -> alert, while not resolved
--   periods: list `from:to`, `to` empty while it lasts         outbox: list of publications, oldest first
-- ARGV[1]: msgpack of { alert, fingerprint, entity, version = the one it was judged by, 0 for a new alert,
--   last_period = the last of `periods` it was judged by, detail, and for a transition: record, state, partition,
--   at = ms, period = its line in `periods`, publication, prefix, keep = resolved alerts kept, periods_ms }
-- Returns 1, or 0 when another worker was first: then nothing was written.
local key, alerts, active, periods, outbox = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local t = cmsgpack.unpack(ARGV[1])

if tonumber(redis.call('HGET', key, 'version') or 0) ~= t.version then return 0 end
if t.version == 0 then
  local other = redis.call('HGET', active, t.fingerprint)
  if other and redis.call('EXISTS', t.prefix .. ':alert:' .. other) == 1 then return 0 end
  if (redis.call('LINDEX', periods, -1) or '') ~= t.last_period then return 0 end
end

redis.call('HSET', key, 'detail', t.detail)
if not t.record then return 1 end

redis.call('HSET', key, 'record', t.record, 'version', t.version + 1, 'state', t.state, 'entity', t.entity,
  'partition', t.partition)
redis.call('ZADD', alerts, t.at, t.alert)
redis.call('RPUSH', outbox, t.publication)

if t.version == 0 then
  redis.call('RPUSH', periods, t.period)
  redis.call('LTRIM', periods, -50, -1)
  redis.call('PERSIST', periods)
elseif t.state == 'resolved' and redis.call('EXISTS', periods) == 1 then
  redis.call('LSET', periods, -1, t.period)
  redis.call('PEXPIRE', periods, t.periods_ms)
end

if t.state ~= 'resolved' then
  redis.call('HSET', active, t.fingerprint, t.alert)
  return 1
end
redis.call('HDEL', active, t.fingerprint)
local excess = redis.call('ZCARD', alerts) - redis.call('HLEN', active) - t.keep
if excess > 0 then
  for _, old in ipairs(redis.call('ZRANGE', alerts, 0, 63)) do
    local state = redis.call('HGET', t.prefix .. ':alert:' .. old, 'state')
    if excess > 0 and (not state or state == 'resolved') then
      redis.call('UNLINK', t.prefix .. ':alert:' .. old)
      redis.call('ZREM', alerts, old)
      excess = excess - 1
    end
  end
end
return 1
