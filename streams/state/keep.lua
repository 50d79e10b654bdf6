-- What is remembered of payments that were judged: decisions, receipts, the queue of reviews; labels that wait, with their
-- dead letters. Bears being done again. Comes after payments.lua and labels.lua.
--
-- ARGV[1]: msgpack { prefix, now, day, days = that a payment is looked for, chunk = receipts in one hash, chunks = hashes
--   kept, queue_max, cases_ms = how long receipts of reviews and blocks are kept,
--   items = { { ref, d = decision, s = score, ts, receipt = bytes, case = whether it is a review or block } },
--   dead = { { ref of a label that waits, partition of its topic, its dead letter as an outbox holds it } } }
local ctx = cmsgpack.unpack(ARGV[1])
local at = ctx.prefix .. ':payments:'
local waiting = waiting_key(ctx.prefix)
local number = redis.call('INCRBY', at .. 'receipts', #ctx.items)
local chunk = math.floor(number / ctx.chunk)
for left = math.floor((number - #ctx.items) / ctx.chunk) + 1, chunk do
  redis.call('UNLINK', at .. 'receipts:' .. (left - ctx.chunks))
end
local receipts, cases = {}, {}
for _, item in ipairs(ctx.items) do
  local key, payment = find_known(ctx.prefix, ctx.day, item.ref, ctx.days)
  if key and not payment.d then
    payment.d, payment.s = item.d, item.s
    if payment.v then count_matured(ctx.prefix, payment, payment.v, 1) end
    redis.call('HSET', key, item.ref, cmsgpack.pack(payment))
  end
  local kept = item.case and cases or receipts
  kept[#kept + 1] = item.ref
  kept[#kept + 1] = item.receipt
  if item.case and not (payment and payment.v) then redis.call('ZADD', at .. 'queue', item.ts, item.ref) end
end
for _, entry in ipairs(ctx.dead) do
  if redis.call('HEXISTS', waiting, entry[1]) == 1 then
    redis.call('HSET', waiting .. ':dead', entry[1], cmsgpack.pack({ p = entry[2], out = entry[3] }))
  end
end
if #receipts > 0 then
  redis.call('HSET', at .. 'receipts:' .. chunk, unpack(receipts))
  redis.call('PEXPIRE', at .. 'receipts:' .. chunk, 7 * DAY_MS)
end
if #cases > 0 then
  local key = at .. 'cases:' .. ctx.day
  redis.call('HSET', key, unpack(cases))
  redis.call('PEXPIRE', key, ctx.cases_ms)
  redis.call('ZREMRANGEBYRANK', at .. 'queue', 0, -ctx.queue_max - 1)
end
return 1
