-- Token buckets, as in tenants/buckets.py; times in milliseconds.
local function refilled(level, free, at, rate)
  if rate == 0 then
    return nil
  end
  local capacity = rate * UNIT
  if not level then
    return {rate = rate, level = capacity, free = 0}
  end
  level, free = tonumber(level), tonumber(free)
  level = level + math.max(0, now - tonumber(at)) * rate
  if level >= 0 then
    level, free = level + free, 0
  end
  return {rate = rate, level = math.min(level, capacity), free = math.min(free, capacity)}
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

local function take(bucket, amount)
  local from = bucket.level >= 0 and 'level' or 'free'
  bucket[from] = bucket[from] - amount
end

local function give(bucket, amount)
  local capacity = bucket.rate * UNIT
  if amount < 0 then
    bucket.level = bucket.level + amount
  elseif bucket.level < 0 then
    bucket.free = math.min(bucket.free + amount, capacity)
  else
    bucket.level = math.min(bucket.level + amount, capacity)
  end
end

local meters = {} -- of this exchange, by party; written at its end

local function meter(party, requests, tokens)
  local m = meters[party]
  if not m then
    local v = redis.call('HMGET', P .. 'm:' .. party, 'rl', 'rf', 'at', 'tl', 'tf')
    m = {
      requests = refilled(v[1], v[2], v[3], requests),
      tokens = refilled(v[4], v[5], v[3], tokens),
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
    for _, pair in ipairs({{short .. 'l', bucket.level}, {short .. 'f', bucket.free}}) do
      fields[#fields + 1] = pair[1]
      fields[#fields + 1] = text(pair[2])
    end
    lasts = math.max(lasts, IDLE + math.ceil(-bucket.level / bucket.rate))
  end
  if #fields > 2 then
    redis.call('HSET', P .. 'm:' .. party, unpack(fields))
    redis.call('PEXPIRE', P .. 'm:' .. party, text(lasts))
  end
end
