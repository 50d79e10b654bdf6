-- The alerts pipeline's effects: signals of kinds that no other pipeline counts, by entity and minute, and the newest of
-- them. What is decided about them is a transition (transition.lua). Comes before guard.lua.
-- effect: false, or { kind, entity, ts = ms, line = JSON of the signal for the feed }
-- ctx.settings: width, span, slice = of the minutes, in ms (see buckets.py); feed = lines kept an entity, entities = entities
--   of a kind that are kept
local function tally_key(ctx, kind, entity, slice)
  return ctx.prefix .. ':tally:' .. kind .. ':' .. entity .. ':' .. string.format('%.0f', slice)
end

local function tally(ctx, e, entity)
  local s = ctx.settings
  local start, slice = e.ts - e.ts % s.width, e.ts - e.ts % s.slice
  if start + s.width + s.span <= ctx.now then return end
  local key = tally_key(ctx, e.kind, entity, slice)
  if redis.call('HINCRBY', key, string.format('%.0f', start / 1000), 1) == 1 then
    redis.call('PEXPIREAT', key, slice + s.slice + s.span)
  end
end

local function apply(ctx, e)
  if not e then return false end
  local s = ctx.settings
  tally(ctx, e, 'market')
  tally(ctx, e, e.entity)
  local feed = ctx.prefix .. ':flagged:' .. e.kind .. ':' .. e.entity
  redis.call('ZADD', feed, e.ts, e.line)
  redis.call('ZREMRANGEBYRANK', feed, 0, -s.feed - 1)
  redis.call('PEXPIRE', feed, s.span)
  -- An entity that falls off the list leaves nothing behind: a flood of made-up names cannot fill the store.
  local known = ctx.prefix .. ':flagged:' .. e.kind
  redis.call('ZADD', known, 'GT', e.ts, e.entity)
  redis.call('PEXPIRE', known, s.span)
  local beyond = redis.call('ZCARD', known) - s.entities
  if beyond > 0 then
    local popped = redis.call('ZPOPMIN', known, beyond)
    for index = 1, #popped, 2 do
      local keys = { ctx.prefix .. ':flagged:' .. e.kind .. ':' .. popped[index] }
      local oldest = ctx.now - s.span - s.slice
      for slice = oldest - oldest % s.slice, ctx.now, s.slice do
        keys[#keys + 1] = tally_key(ctx, e.kind, popped[index], slice)
      end
      redis.call('UNLINK', unpack(keys))
    end
  end
  return false
end

local function recall() return false end
