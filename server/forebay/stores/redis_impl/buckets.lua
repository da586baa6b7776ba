-- Token buckets, as in tenants/buckets.py; times in milliseconds.
local function cap(bucket)
  local room = bucket.rate * UNIT - bucket.aside
  if bucket.level > 0 then
    bucket.level = math.max(0, math.min(bucket.level, room))
  else
    bucket.free = math.max(0, math.min(bucket.free, room - bucket.level))
  end
end

local function refilled(rate, at, level, free, aside)
  if rate == 0 then
    return nil
  end
  if not level then
    return {rate = rate, level = rate * UNIT, free = 0, aside = 0}
  end
  local bucket = {rate = rate, level = tonumber(level), free = tonumber(free), aside = tonumber(aside)}
  bucket.level = bucket.level + math.max(0, now - tonumber(at)) * rate
  if bucket.level >= 0 then
    bucket.level, bucket.free = bucket.level + bucket.free, 0
  end
  cap(bucket)
  return bucket
end

local function available(bucket)
  return bucket.level >= 0 and bucket.level or bucket.free
end

local function wait(bucket, amount)
  if amount <= available(bucket) then
    return 0
  end
  return math.floor((amount - bucket.level + bucket.rate - 1) / bucket.rate)
end

local function set_aside(bucket, amount)
  local from = bucket.level < 0 and amount <= bucket.free and 'free' or 'level'
  bucket[from] = bucket[from] - amount
  bucket.aside = bucket.aside + amount
end

local function give(bucket, amount)
  local to = amount > 0 and bucket.level < 0 and 'free' or 'level'
  bucket[to] = bucket[to] + amount
  cap(bucket)
end

local function take(bucket, amount, promised)
  bucket.aside = bucket.aside - promised
  if amount < promised then
    give(bucket, promised - amount)
  else
    local from = bucket.level >= 0 and 'level' or 'free'
    bucket[from] = bucket[from] - (amount - promised)
  end
end

local meters = {} -- of this exchange, by party; written at its end

local function meter(party, requests, tokens)
  local m = meters[party]
  if not m then
    local v = redis.call('HMGET', P .. 'm:' .. party, 'at', 'rl', 'rf', 'ra', 'tl', 'tf', 'ta')
    m = {
      requests = refilled(requests, v[1], v[2], v[3], v[4]),
      tokens = refilled(tokens, v[1], v[5], v[6], v[7]),
      by_owner = P .. 'p:' .. party,
      by_due = P .. 'd:' .. party,
    }
    meters[party] = m
  end
  return m
end

local function store(party, m)
  local fields, lasts = {'at', text(now)}, IDLE
  for short, bucket in pairs({r = m.requests, t = m.tokens}) do
    for _, name in ipairs({'level', 'free', 'aside'}) do
      fields[#fields + 1] = short .. string.sub(name, 1, 1)
      fields[#fields + 1] = text(bucket[name])
    end
    lasts = bucket.aside > 0 and HORIZON + IDLE or math.max(lasts, IDLE + math.ceil(-bucket.level / bucket.rate))
  end
  if #fields > 2 then
    redis.call('HSET', P .. 'm:' .. party, unpack(fields))
    redis.call('PEXPIRE', P .. 'm:' .. party, text(lasts))
  end
end
