-- The effects of one payment or label: records at the ends of the logs of its account and its terminal. Comes before guard.lua.
--
-- A log is a string: the number of records dropped at its front (a double, 8 bytes), then records of 36 bytes in order of
-- arrival, little endian: time i8 (ms), cents i8, id 8 bytes, counterpart u4, usual u4, country 2 bytes, kind u1, count u1.
-- kind: 0 payment, 1 payment far above its account's usual amount, 2 fraud, 3 no fraud after all (of both: time is when it
-- was known, cents the time of the payment). usual, count: of the account as the payment finds it, see history.py.
-- A record's place counts from the log's first record ever. The record in the log is the mark that it is done.
--
-- effect of a payment: { a = account's key, t = terminal's key, d = digest of the id, day = today, ts, c = cents, b = bytes: id 8, counterpart in the account's log
--   4, in the terminal's 4, country 2, and the id of the last record that the worker knows of the account's log 8, of the
--   terminal's 8; k = { records that it has read of a, of t, front to drop of a, of t or 0, whether to extend the life of a, of t } }
-- decision: { place in a, place in t, of each log where it is first met in this step: from, at, length, reset }
--   the records from `from` on stand at byte `at` of the reply's second part; reset: all that the worker knew is to be forgotten.
-- ctx.settings: retain_ms (an account idle for longer is new), expire_ms, shrink, unusual
-- Labels: see labels.lua, which comes after this file.
local SIZE = 36
local met_logs = {}

local function reply_bytes(ctx, bytes)
  local at = ctx.bytes_size or 0
  ctx.bytes = ctx.bytes or {}
  ctx.bytes[#ctx.bytes + 1] = bytes
  ctx.bytes_size = at + #bytes
  return at
end

-- The log's end, and what of it the worker has not read: { count, last record or '' }, from, bytes, reset
local function follow(key, read, last, cut)
  local head = redis.call('GETRANGE', key, 0, 7)
  if head == '' then return { 0, '' }, 0, '', read > 0 and 1 or 0 end
  local base = struct.unpack('<d', head)
  if cut > base and cut <= read then
    local rest = redis.call('GETRANGE', key, 8 + (cut - base) * SIZE, -1)
    local life = redis.call('PTTL', key)
    base = cut
    redis.call('SET', key, struct.pack('<d', base) .. rest)
    if life > 0 then redis.call('PEXPIRE', key, life) end
  end
  if read > base then
    local found = redis.call('GETRANGE', key, 8 + (read - 1 - base) * SIZE, -1)
    if found:sub(17, 24) == last then
      return { read + #found / SIZE - 1, found:sub(-SIZE) }, read, found:sub(SIZE + 1), 0
    end
  end
  local all = redis.call('GETRANGE', key, 8, -1)
  return { base + #all / SIZE, all:sub(-SIZE) }, base, all, (read > 0 and read ~= base) and 1 or 0
end

local function open_log(ctx, key, read, last, cut)
  local log = met_logs[key]
  if log then return log end
  local from, bytes, reset
  log, from, bytes, reset = follow(key, read, last, cut)
  met_logs[key] = log
  return log, { from, reply_bytes(ctx, bytes), #bytes, reset }
end

local function append(ctx, key, log, record, extend)
  if log[1] == 0 and redis.call('EXISTS', key) == 0 then
    record, extend = struct.pack('<d', 0) .. record, true
  end
  redis.call('APPEND', key, record)
  if extend then redis.call('PEXPIRE', key, ctx.settings.expire_ms) end
  log[1], log[2] = log[1] + 1, record:sub(-SIZE)
  return log[1] - 1
end

-- The usual amount of an account as a payment of this time finds it, from the last payment in its log.
local function usual_before(ctx, key, log, ts)
  local record, back = log[2], 1
  while #record == SIZE and record:byte(35) >= 2 do
    back = back + 1
    if redis.call('STRLEN', key) < 8 + back * SIZE then return 0, 0 end
    record = redis.call('GETRANGE', key, -back * SIZE, -(back - 1) * SIZE - 1)
  end
  if #record < SIZE then return 0, 0 end
  local time, cents = struct.unpack('<i8', record), struct.unpack('<i8', record, 9)
  local usual, count = struct.unpack('<I4', record, 29), record:byte(36)
  if ts - time > ctx.settings.retain_ms then return 0, 0 end
  count = math.min(count + 1, ctx.settings.shrink)
  local most = count == 1 and 4294967295 or ctx.settings.unusual * math.max(usual, 100)
  local bounded = math.max(0, math.min(cents, most))
  return math.min(4294967295, math.floor((usual * (count - 1) + bounded) / count)), count
end

local function apply_payment(ctx, e)
  local known = e.k
  local account, seen_a = open_log(ctx, e.a, known[1], e.b:sub(19, 26), known[3])
  local terminal, seen_t = open_log(ctx, e.t, known[2], e.b:sub(27, 34), known[4])
  local usual, count = usual_before(ctx, e.a, account, e.ts)
  local above = count > 0 and e.c > ctx.settings.unusual * usual
  local head, country = struct.pack('<i8i8', e.ts, e.c) .. e.b:sub(1, 8), e.b:sub(17, 18)
  local place_a = append(ctx, e.a, account,
    head .. e.b:sub(9, 12) .. struct.pack('<I4', usual) .. country .. string.char(0, count), known[5])
  local place_t = append(ctx, e.t, terminal,
    head .. e.b:sub(13, 16) .. '\0\0\0\0' .. country .. string.char(above and 1 or 0, 0), known[6])
  return { place_a, place_t, seen_a or false, seen_t or false }
end

-- A payment that is done already: the whole logs, in which the worker finds the payment's own place.
local whole = {}
local function recall_payment(ctx, e)
  local function all(key)
    if whole[key] then return false end
    whole[key] = true
    local found = redis.call('GET', key) or ''
    return { found == '' and 0 or struct.unpack('<d', found), reply_bytes(ctx, found:sub(9)), math.max(0, #found - 8), 0 }
  end
  return { -1, -1, all(e.a), all(e.t) }
end
