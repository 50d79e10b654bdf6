-- The atomic step of every pipeline: for a piece of a batch, one record after the other, its effects and the mark that
-- they are done. The pipeline's own file, put before this one, defines
--   apply(ctx, effect)  -> decision   writes the effects of one record and returns what the store decided about it
--   recall(ctx, effect) -> decision   the decision for a record whose effects are done already; writes nothing new
--
-- KEYS: marks, seen, outcomes, watermark.   ARGV[1]: msgpack of
--   { prefix, pipeline, topic, life, now, dedupe_ms, dedupe_max, settings = {...}, items = { item... } },   times in ms
-- item: { p = partition, o = offset, prev = offset before it in this owner's reading or nil,
--         k = "scored" | "filtered" | "dead_letter", d = digest of the id, ts = event time, e = effect }
-- Returns msgpack of { {status, decision}... }; status: new, again (done before), duplicate, dead. Where the pipeline's file
-- puts strings into ctx.bytes, the reply has a second part: these, joined.
--
-- Errors before any write: GAP, when records before this piece were not done in this store (an earlier piece failed, or
-- the store lost its state): the owner has to read again from where the store stands.
local ctx = cmsgpack.unpack(ARGV[1])
local marks_key, seen_key, outcomes_key, watermark_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local old_key, since_key = seen_key .. ':old', seen_key .. ':since'

local marks = {}
for _, item in ipairs(ctx.items) do
  if marks[item.p] == nil then
    local mark = tonumber(redis.call('HGET', marks_key, item.p) or -1)
    if item.prev and mark < item.prev then
      return redis.error_reply('GAP partition ' .. item.p .. ' stands at ' .. mark .. ', not at ' .. item.prev)
    end
    marks[item.p] = mark
  end
end

-- Ids live in two generations; a full or an old one becomes the older, and the older before it goes.
local since = tonumber(redis.call('GET', since_key) or 0)
if since == 0 or ctx.now - since >= ctx.dedupe_ms or redis.call('HLEN', seen_key) >= ctx.dedupe_max then
  redis.call('UNLINK', old_key)
  if redis.call('EXISTS', seen_key) == 1 then
    redis.call('RENAME', seen_key, old_key)
    redis.call('PEXPIRE', old_key, 2 * ctx.dedupe_ms)
  end
  redis.call('SET', since_key, ctx.now, 'PX', 2 * ctx.dedupe_ms)
end

local function met(field)
  return redis.call('HGET', seen_key, field) or redis.call('HGET', old_key, field)
end

local ends = false -- whether the ids are known to have an end
local function remember(field, place)
  redis.call('HSET', seen_key, field, place)
  if not ends and redis.call('PTTL', seen_key) < 0 then redis.call('PEXPIRE', seen_key, 2 * ctx.dedupe_ms) end
  ends = true
end

local replies, newest = {}, {}
for index, item in ipairs(ctx.items) do
  local fresh = item.o > marks[item.p]
  local place = item.p .. ':' .. item.o
  local status, decision, outcome
  if item.k == 'dead_letter' then
    status, outcome = 'dead', 'dead_letter'
    if fresh then remember('dead:' .. place, '1') end
  else
    local first = met(item.d)
    local condemned = first == place and met('dead:' .. place)
    if condemned then
      status, decision = 'dead', condemned -- it failed after its effects: condemn.lua
    elseif first == place then
      status, decision = 'again', recall(ctx, item.e)
    elseif first then
      status, outcome = 'duplicate', 'duplicate'
    elseif fresh then
      decision = apply(ctx, item.e)
      remember(item.d, place)
      status, outcome = 'new', item.k
    elseif met('dead:' .. place) then
      status = 'dead'
    else
      status, decision = 'again', recall(ctx, item.e)
    end
    newest[item.p] = math.max(newest[item.p] or 0, math.min(item.ts, ctx.now))
  end
  if fresh then
    redis.call('HSET', marks_key, item.p, item.o)
    marks[item.p] = item.o
    redis.call('HINCRBY', outcomes_key, outcome, 1)
  end
  replies[index] = { status, decision or false }
end

for partition, ts in pairs(newest) do
  if ts > tonumber(redis.call('HGET', watermark_key, partition) or 0) then
    redis.call('HSET', watermark_key, partition, ts)
  end
  redis.call('HSET', watermark_key, partition .. ':at', ctx.now)
end
redis.call('PEXPIRE', watermark_key, 86400000)
if ctx.bytes then return { cmsgpack.pack(replies), table.concat(ctx.bytes) } end
return cmsgpack.pack(replies)
