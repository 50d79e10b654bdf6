-- The effects of one headline: its story, the trend buckets of its entities and of the market, the feeds.
-- Needs assign_story of stories.lua before it; comes before guard.lua.
-- effect: { story = what stories.py prepared, ts = event time in ms, feed = the feed's JSON object without its last brace,
--           names = { entity... } the market first, labels = { letter... } the label towards each (see buckets.py) }
-- ctx.settings: sizes = { {name, width, span, slice}... } in ms, story_hours, market_feed, entity_feed, feed_ms, entities_max
-- The decision is { story, duplicate_of or false }.
local function count(ctx, ts, entity, letter, first_of_story)
  for _, size in ipairs(ctx.settings.sizes) do
    local start = ts - ts % size[2]
    if start + size[2] + size[3] > ctx.now then
      local slice = ts - ts % size[4]
      local key = ctx.prefix .. ':trend:' .. size[1] .. ':' .. entity .. ':' .. string.format('%.0f', slice)
      local bucket = string.format('%.0f', start / 1000)
      local new = redis.call('HINCRBY', key, bucket .. ':' .. letter, 1) == 1
      if first_of_story then
        redis.call('HINCRBY', key, bucket .. ':s', 1)
        if letter == 'g' then redis.call('HINCRBY', key, bucket .. ':b', 1) end
      end
      if new then redis.call('PEXPIREAT', key, slice + size[4] + size[3]) end  -- last: it may delete the key at once
    end
  end
end

local function show(ctx, ts, entity, line, most)
  local key = ctx.prefix .. ':feed:' .. entity
  redis.call('ZADD', key, ts, line)
  redis.call('ZREMRANGEBYRANK', key, 0, -most - 1)
  redis.call('PEXPIRE', key, ctx.settings.feed_ms)
end

-- An entity that falls off the list leaves nothing behind: a flood of made-up symbols cannot fill the store.
local function forget(ctx, entity)
  local keys = { ctx.prefix .. ':feed:' .. entity }
  for _, size in ipairs(ctx.settings.sizes) do
    local oldest, newest = ctx.now - size[3] - size[4], ctx.now
    for slice = oldest - oldest % size[4], newest, size[4] do
      keys[#keys + 1] = ctx.prefix .. ':trend:' .. size[1] .. ':' .. entity .. ':' .. string.format('%.0f', slice)
    end
  end
  redis.call('UNLINK', unpack(keys))
end

local function apply(ctx, effect)
  local story, duplicate_of = assign_story(ctx.prefix, ctx.life, ctx.now, effect.ts, effect.story, ctx.settings.story_hours)
  local line = effect.feed .. ',"story":' .. cjson.encode(story)
    .. ',"duplicate_of":' .. (duplicate_of and cjson.encode(duplicate_of) or 'null') .. '}'
  local known = ctx.prefix .. ':entities'
  for index, entity in ipairs(effect.names) do
    count(ctx, effect.ts, entity, effect.labels[index], not duplicate_of)
    if index == 1 then
      show(ctx, effect.ts, entity, line, ctx.settings.market_feed)
    else
      show(ctx, effect.ts, entity, line, ctx.settings.entity_feed)
      redis.call('ZADD', known, 'GT', effect.ts, entity)
    end
  end
  local beyond = redis.call('ZCARD', known) - ctx.settings.entities_max
  if beyond > 0 then
    local popped = redis.call('ZPOPMIN', known, beyond)
    for index = 1, #popped, 2 do forget(ctx, popped[index]) end
  end
  redis.call('PEXPIRE', known, ctx.settings.feed_ms)
  return { story, duplicate_of }
end

local function recall(ctx, effect)
  local story, duplicate_of = assign_story(ctx.prefix, ctx.life, ctx.now, effect.ts, effect.story, ctx.settings.story_hours)
  return { story, duplicate_of }
end
