-- Labels of payments: to the logs of account and terminal, to the counts of what was decided rightly, or to those that wait.
-- Comes after payments.lua, before guard.lua or keep.lua. A payment is known for retain_ms.
--
-- known payment: msgpack { c = cents, ts, a, t = names in the keys of its logs, and once it is judged d = decision, s = score;
--   v = its label, at = ts of the label }, in the hash <prefix>:payments:known:<day it came>:<two characters of its digest>
-- effect of a label: { ref = digest of the payment's id (of a long one in short), v = "fraud" | "legit", ts, day = today,
--   a, t = keys of the logs or '', due = ms when it has waited long enough }, or { skip = true }
-- decision: known (1), waits (0), or older than the label that stands (-1)
local DAY_MS = 86400000

local function known_key(prefix, day, ref) return prefix .. ':payments:known:' .. day .. ':' .. ref:sub(1, 2) end
local function waiting_key(prefix) return prefix .. ':payments:waiting' end

local function find_known(prefix, day, ref, days)
  for back = 0, days do
    local key = known_key(prefix, day - back, ref)
    local found = redis.call('HGET', key, ref)
    if found then return key, cmsgpack.unpack(found) end
  end
end

-- A record about a payment at the end of a log that is there; the last payment of an account is found past it.
local function append_label(key, ref, known_at, paid_at, kind)
  if key == '' or redis.call('EXISTS', key) == 0 then return end
  local id = (ref .. '\0\0\0\0\0\0\0\0'):sub(1, 8)
  redis.call('APPEND', key, struct.pack('<i8i8', known_at, paid_at) .. id .. '\0\0\0\0\0\0\0\0\0\0' .. string.char(kind, 0))
  met_logs[key] = nil
end

local function tell(ref, account, terminal, known_at, paid_at, fraud)
  append_label(account, ref, known_at, paid_at, fraud and 2 or 3)
  append_label(terminal, ref, known_at, paid_at, fraud and 2 or 3)
end

local function count_matured(prefix, payment, verdict, by)
  local key = prefix .. ':payments:matured:' .. math.floor(payment.ts / DAY_MS)
  redis.call('HINCRBY', key, payment.d .. ':' .. verdict, by)
  redis.call('HINCRBY', key, payment.d .. ':' .. verdict .. ':cents', by * payment.c)
  redis.call('PEXPIRE', key, 400 * DAY_MS)
end

-- The label of a known payment: one verdict counts, the one with the latest time.
local function judge_known(prefix, key, ref, payment, label)
  if payment.at and payment.at > label.ts then return -1 end
  local before = payment.v
  if before ~= label.v then
    if payment.d then
      if before then count_matured(prefix, payment, before, -1) end
      count_matured(prefix, payment, label.v, 1)
    end
    if label.v == 'fraud' or before == 'fraud' then
      local at = prefix .. ':payments:'
      tell(ref, at .. 'account:' .. payment.a, at .. 'terminal:' .. payment.t, label.ts, payment.ts, label.v == 'fraud')
    end
    redis.call('ZREM', prefix .. ':payments:queue', ref)
  end
  payment.v, payment.at = label.v, label.ts
  redis.call('HSET', key, ref, cmsgpack.pack(payment))
  return 1
end

local function forget_waiting(prefix, ref)
  local waiting = waiting_key(prefix)
  redis.call('HDEL', waiting, ref)
  redis.call('HDEL', waiting .. ':dead', ref)
  redis.call('ZREM', waiting .. ':due', ref)
end

local anything_waits
local function apply_label(ctx, e)
  local key, payment = find_known(ctx.prefix, e.day, e.ref, ctx.settings.retain_ms / DAY_MS)
  if key then return judge_known(ctx.prefix, key, e.ref, payment, e) end
  local waiting = waiting_key(ctx.prefix)
  anything_waits = true
  local other = redis.call('HGET', waiting, e.ref)
  if other and cmsgpack.unpack(other).ts > e.ts then return -1 end
  redis.call('HSET', waiting, e.ref, cmsgpack.pack(e))
  redis.call('ZADD', waiting .. ':due', e.due, e.ref)
  return 0
end

-- A payment that was appended just now is known; a label that waited for it counts from here on.
local function know(ctx, e)
  local names = #ctx.prefix + #':payments:'
  local payment = {
    c = e.c, ts = e.ts,
    a = e.a:sub(names + #'account:' + 1),
    t = e.t:sub(names + #'terminal:' + 1),
  }
  local key = known_key(ctx.prefix, e.day, e.d)
  if redis.call('HSET', key, e.d, cmsgpack.pack(payment)) == 1 and redis.call('HLEN', key) == 1 then
    redis.call('PEXPIRE', key, ctx.settings.expire_ms)
  end
  if anything_waits == nil then anything_waits = redis.call('EXISTS', waiting_key(ctx.prefix)) == 1 end
  if anything_waits then
    local label = redis.call('HGET', waiting_key(ctx.prefix), e.d)
    if label then
      judge_known(ctx.prefix, key, e.d, payment, cmsgpack.unpack(label))
      forget_waiting(ctx.prefix, e.d)
    end
  end
end

local function apply(ctx, effect)
  if effect.skip then return false end
  if effect.ref then return apply_label(ctx, effect) end
  local decision = apply_payment(ctx, effect)
  know(ctx, effect)
  return decision
end

local function recall(ctx, effect)
  if effect.skip then return false end
  if effect.ref then return redis.call('HEXISTS', waiting_key(ctx.prefix), effect.ref) == 1 and 0 or 1 end
  return recall_payment(ctx, effect)
end
