-- Who was told to come back when, as in tenants/promises.py. A promise is a member of two sorted sets: one by owner,
-- one by when it is due.
local function give_back(m, promise)
  for _, name in ipairs({'requests', 'tokens'}) do
    local bucket = m[name]
    if bucket then
      bucket.aside = bucket.aside - promise[name]
      give(bucket, promise[name])
    end
  end
end

local function parsed(member)
  local due, requests, tokens = string.match(member, '^%x+|(%d+)|[%d.]+|(%d+)|(%d+)$')
  return {member = member, due = tonumber(due), requests = tonumber(requests), tokens = tonumber(tokens)}
end

local function remove(m, promise)
  redis.call('ZREM', m.by_owner, promise.member)
  redis.call('ZREM', m.by_due, promise.member)
end

local function look_up(m, whose)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', m.by_due, '-inf', '(' .. text(now - GRACE))) do
    local promise = parsed(member)
    remove(m, promise)
    give_back(m, promise)
  end
  local first = redis.call('ZRANGEBYLEX', m.by_owner, '[' .. whose .. '|', '(' .. whose .. '}', 'LIMIT', 0, 1)[1]
  local promise = first and parsed(first)
  return promise and promise.due <= now + EARLY and promise or nil
end

local function add(m, whose, due, number, requests, tokens)
  local member = string.format('%s|%015.0f|%s|%.0f|%.0f', whose, due, number, requests, tokens)
  redis.call('ZADD', m.by_owner, 0, member)
  redis.call('ZADD', m.by_due, text(due), member)
  redis.call('PEXPIRE', m.by_owner, HORIZON + IDLE)
  redis.call('PEXPIRE', m.by_due, HORIZON + IDLE)
end
