-- The effects of an interaction, and of a catalogue record. Comes before guard.lua.
-- effect: { t = "item", i = item, ts = ms, v = JSON of what is kept of it }
--      or { t = "act", c = customer, i = item, k = kind, ts = ms }
-- ctx.settings: day_ms, days_kept, met_max
-- A customer's hash has item -> "<ms of the latest interaction>:<flags>", flags of o (owned) and d (dismissed): they stay.
-- The decision is the customer's hash as a flat list, or for a catalogue record whether it is the latest.
local function key(ctx, name) return ctx.prefix .. ':reco:' .. name end

local function read(text)
  local at, flags = string.match(text, '^(%d+):(%a*)$')
  return tonumber(at), flags
end

-- What was only looked at goes, the oldest first; what is owned or dismissed never does.
local function trim(mine, most)
  if redis.call('HLEN', mine) <= most then return end
  local all, looked = redis.call('HGETALL', mine), {}
  for index = 1, #all, 2 do
    local at, flags = read(all[index + 1])
    if flags == '' then looked[#looked + 1] = { at, all[index] } end
  end
  table.sort(looked, function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end)
  for index = 1, math.min(#looked, math.ceil(most / 4)) do redis.call('HDEL', mine, looked[index][2]) end
end

local function apply(ctx, effect)
  if effect.t == 'item' then
    local known = redis.call('HGET', key(ctx, 'items'), effect.i)
    if known and tonumber(string.match(known, '^%d+')) > effect.ts then return { 0 } end
    redis.call('HSET', key(ctx, 'items'), effect.i, string.format('%.0f', effect.ts) .. ':' .. effect.v)
    redis.call('INCR', key(ctx, 'version'))
    return { 1 }
  end
  local mine = key(ctx, 'customer:' .. effect.c)
  local old, day = redis.call('HGET', mine, effect.i), ctx.settings.day_ms
  local at, flags = 0, ''
  if old then at, flags = read(old) end
  if effect.k == 'buy' and not string.find(flags, 'o') then flags = flags .. 'o' end
  if effect.k == 'dismiss' and not string.find(flags, 'd') then flags = flags .. 'd' end
  redis.call('HSET', mine, effect.i, string.format('%.0f', math.max(at, effect.ts)) .. ':' .. flags)
  trim(mine, ctx.settings.met_max)
  if effect.k ~= 'dismiss' then  -- each counts: a rule that looks at what came before would depend on arrival
    local number = math.floor(effect.ts / day)
    local asked = key(ctx, 'day:' .. string.format('%.0f', number))
    redis.call('HINCRBY', key(ctx, 'ever'), effect.i, 1)
    local first = tonumber(redis.call('HGET', key(ctx, 'first'), effect.i) or math.huge)
    if effect.ts < first then redis.call('HSET', key(ctx, 'first'), effect.i, string.format('%.0f', effect.ts)) end
    redis.call('HINCRBY', asked, effect.i, 1)
    redis.call('PEXPIREAT', asked, (number + ctx.settings.days_kept) * day)  -- last: it may delete the key at once
  end
  return redis.call('HGETALL', mine)
end

local function recall(ctx, effect)
  if effect.t == 'item' then return { 0 } end
  return redis.call('HGETALL', key(ctx, 'customer:' .. effect.c))
end
