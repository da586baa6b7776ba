-- Who shares the budgets. They are open while every known replica has said what it holds since this Redis started or was
-- wiped, for until then nobody knows what is left.
local fleet = {}
local seeded = P .. 'seeded:' .. run
if q.fleet then
  local f = q.fleet
  local memory = redis.call('INFO', 'memory')
  local evicts = string.match(memory, 'maxmemory_policy:([%w%-]+)') ~= 'noeviction'
    and string.match(memory, 'maxmemory:(%d+)') ~= '0'
  redis.call('HDEL', P .. 'forgotten', q.replica)
  for _, id in ipairs(f.known) do
    if redis.call('HEXISTS', P .. 'forgotten', id) == 0 then
      redis.call('SADD', P .. 'known', id)
    end
  end
  redis.call('HSET', P .. 'beats', q.replica, text(now))
  if evicts then
    redis.call('DEL', P .. 'epoch', seeded)
  elseif q.seed_ends and redis.call('HGET', P .. 'seeding', q.replica) == q.seed_ends then
    redis.call('SADD', seeded, q.replica)
    redis.call('SET', P .. 'seeded_at:' .. run, text(now), 'NX')
  end
  local known = redis.call('SMEMBERS', P .. 'known')
  local missing = 0
  for _, id in ipairs(known) do
    missing = missing + 1 - redis.call('SISMEMBER', seeded, id)
  end
  local waited = now - tonumber(redis.call('GET', P .. 'seeded_at:' .. run) or now)
  local complete = f.replicas > 0 and redis.call('SCARD', seeded) >= f.replicas
    or f.replicas == 0 and waited >= f.quarantine_ms
  if missing == 0 and complete and not evicts then
    redis.call('SET', P .. 'epoch', run)
  end
  local num_alive = 0
  for _, beat in ipairs(redis.call('HVALS', P .. 'beats')) do
    if tonumber(beat) > now - f.alive_ms then
      num_alive = num_alive + 1
    end
  end
  fleet = {
    redis.call('SISMEMBER', seeded, q.replica),
    num_alive,
    missing,
    evicts and 1 or 0,
    known,
    redis.call('HKEYS', P .. 'forgotten'),
  }
end
local open = redis.call('GET', P .. 'epoch') == run
