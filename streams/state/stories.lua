-- The story of a headline: which earlier headline it repeats, if any. streams/headlines/stories.py says how and why, and
-- has the same in Python (`Memory`), which a test holds against this.
--
--   assign_story(prefix, life, now, ts, item, hours) -> story, duplicate_of or false
-- now: the clock, ts: event time, both in ms; item: what stories.py prepared; hours: how long a story takes copies in, by
-- event time from its first headline. Asked again with the same id it gives the same answer and writes nothing.
--
-- Keys, below <prefix>:story:<life>: , all with an expiry. Time is cut into slots of `hours`; a slot and the one before it
-- are read, so that what is written is remembered between one and two times `hours`.
--   i:<slot>:<shard>   hash, digest of a record id -> the story it joined, or empty where it began one
--   p:<slot>:<shard>   hash, rest of a token's digest -> places of the newest 64 first headlines with it, 4 bytes each
--   d:<chunk>          list of first headlines, 64 a chunk: start in ms, tokens, entities, id
--   n                  how many first headlines there were; a place is the chunk times 64 and the index in it
-- Shards are so many that their hashes stay small, which halves the memory.
local function assign_story(prefix, life, now, ts, item, hours)
  local coefficients = {-2.271, 5.62, 1.548, -1.999, -3.219, -1.355, 0.569, -1.463, -0.507}
  local least_logit = math.log(0.85 / (1 - 0.85))
  local NAME, FACT, UP, DOWN, NOT = 1, 2, 3, 4, 5
  local base = prefix .. ':story:' .. life .. ':'
  local span = hours * 3600000
  local slot = math.floor(now / span)
  local slots = {string.format('%.0f', slot), string.format('%.0f', slot - 1)}
  local slot_ttl = string.format('%.0f', (slot + 2) * span - now + 60000)
  local list_ttl = string.format('%.0f', 2 * span + 60000)

  local function put(key, field, value)
    if redis.call('HSET', key, field, value) == 1 and redis.call('HLEN', key) == 1 then
      redis.call('PEXPIRE', key, slot_ttl)
    end
  end

  local digest = redis.sha1hex(item.id)
  local shard, field = ':' .. string.sub(digest, 1, 3), string.sub(digest, 4, 18)
  for _, name in ipairs(slots) do
    local known = redis.call('HGET', base .. 'i:' .. name .. shard, field)
    if known == '' then return item.id, false end
    if known then return known, known end
  end

  local function posting(token, name)
    local one, two = string.byte(token, 1, 2)
    return base .. 'p:' .. name .. ':' .. (one * 16 + math.floor(two / 16)), string.sub(token, 2)
  end

  -- The headline's tokens: digest -> weight and kind.
  local weights, kinds, count = {}, {}, #item.tok / 6
  for at = 1, #item.tok, 6 do
    local token = string.sub(item.tok, at, at + 3)
    weights[token], kinds[token] = string.byte(item.tok, at + 4, at + 5)
  end
  local entities = {}
  for at = 1, #item.ent, 4 do entities[string.sub(item.ent, at, at + 3)] = true end

  -- Candidates: first headlines by the weight of the rarest tokens that they share. Those that only the last and least
  -- rare tokens name cannot reach the share, so they are not even noted.
  local rest = 0
  for at = 1, #item.blk, 4 do rest = rest + weights[string.sub(item.blk, at, at + 3)] end
  local least = 0.4 * rest
  local shared, places, newest = {}, {}, {}
  for at = 1, #item.blk, 4 do
    local token = string.sub(item.blk, at, at + 3)
    local weight = weights[token]
    for index, name in ipairs(slots) do
      local key, field_name = posting(token, name)
      local list = redis.call('HGET', key, field_name) or ''
      if index == 1 then newest[token] = list end
      local heads = {struct.unpack('>' .. string.rep('I4', #list / 4), list)}
      for place = 1, #heads - 1 do -- the last is where unpacking stopped
        local head = heads[place]
        local sum = shared[head]
        if sum then
          shared[head] = sum + weight
        elseif rest >= least then
          shared[head] = weight
          places[#places + 1] = head
        end
      end
    end
    rest = rest - weight
  end
  local found = {}
  for _, head in ipairs(places) do
    if shared[head] >= least then found[#found + 1] = head end
  end
  table.sort(found, function(a, b)
    if shared[a] ~= shared[b] then return shared[a] > shared[b] end
    return a < b
  end)

  -- The log odds that the headline and a first one are one story, or nothing where a hard rule parts them.
  local function judge(head)
    local sum, left_one, left_other = 0, 0, 0
    local one, other = {[0] = 0, 0, 0, 0, 0, 0}, {[0] = 0, 0, 0, 0, 0, 0}
    local met, size = {}, 0
    for at = 1, #head.tok, 6 do
      local token = string.sub(head.tok, at, at + 3)
      local weight, kind = string.byte(head.tok, at + 4, at + 5)
      size = size + 1
      if weights[token] then
        sum = sum + weight
        met[token] = true
      else
        left_one = left_one + weight
        if weight > one[kind] then one[kind] = weight end
      end
    end
    for token, weight in pairs(weights) do
      if not met[token] then
        left_other = left_other + weight
        if weight > other[kinds[token]] then other[kinds[token]] = weight end
      end
    end
    local strange, missing, known = false, false, {}
    for at = 1, #head.ent, 4 do
      local entity = string.sub(head.ent, at, at + 3)
      known[entity] = true
      if not entities[entity] then strange = true end
    end
    for entity in pairs(entities) do
      if not known[entity] then missing = true end
    end
    local union = sum + left_one + left_other
    if (strange and missing) or (one[NAME] > 0 and other[NAME] > 0) or (one[FACT] > 0 and other[FACT] > 0)
      or (one[UP] > 0 and other[DOWN] > 0) or (one[DOWN] > 0 and other[UP] > 0) or one[NOT] > 0 or other[NOT] > 0
      or (math.min(size, count) < 3 and math.max(left_one, left_other) > 0) or union == 0 then
      return nil
    end
    local function flag(value) return value > 0 and 1 or 0 end
    local most_one = math.max(one[0], one[1], one[2], one[3], one[4], one[5])
    local most_other = math.max(other[0], other[1], other[2], other[3], other[4], other[5])
    local smaller = math.min(left_one, left_other)
    local features = {
      sum / union,
      sum / (sum + smaller),
      smaller / union,
      math.min(most_one, most_other) / 100,
      math.max(most_one, most_other) / 100,
      flag(one[FACT] + other[FACT]),
      flag(one[NAME] + other[NAME]),
      flag(one[UP] + one[DOWN] + other[UP] + other[DOWN]),
    }
    local logit = coefficients[1]
    for index, feature in ipairs(features) do logit = logit + coefficients[index + 1] * feature end
    return logit
  end

  local best, best_logit = false, least_logit
  for index = 1, math.min(6, #found) do
    local number = found[index]
    local blob = redis.call('LINDEX', base .. 'd:' .. math.floor(number / 64), number % 64)
    if blob then
      local start, tokens, names, at = struct.unpack('>dBB', blob)
      local head = {tok = string.sub(blob, at, at + 6 * tokens - 1), id = string.sub(blob, at + 6 * tokens + 4 * names)}
      head.ent = string.sub(blob, at + 6 * tokens, at + 6 * tokens + 4 * names - 1)
      local logit = math.abs(ts - start) <= span and judge(head)
      if logit and logit > best_logit then best, best_logit = head.id, logit end
    end
  end

  put(base .. 'i:' .. slots[1] .. shard, field, best or '')
  if best then return best, best end
  local chunk = math.floor((redis.call('INCR', base .. 'n') - 1) / 64)
  local list = base .. 'd:' .. chunk
  local blob = struct.pack('>dBB', ts, count, #item.ent / 4) .. item.tok .. item.ent .. item.id
  local place = struct.pack('>I4', chunk * 64 + redis.call('RPUSH', list, blob) - 1)
  redis.call('PEXPIRE', base .. 'n', list_ttl)
  redis.call('PEXPIRE', list, list_ttl)
  for at = 1, #item.blk, 4 do
    local token = string.sub(item.blk, at, at + 3)
    local key, field_name = posting(token, slots[1])
    put(key, field_name, string.sub(newest[token] .. place, -256))
  end
  return item.id, false
end
