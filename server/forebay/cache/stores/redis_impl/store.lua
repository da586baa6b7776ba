-- The cache in Redis. KEYS[1] begins all names; ARGV[1] says what is to be done, the rest is its own.
--   e:<id>       an entry, which ends by itself
--   v:<scope>:<length>  a vector set: the ids of the scope's entries by their embeddings of that length. Searched and
--                added to outside of the script, in Redis' own threads: in here nobody else would be served meanwhile
--   t:<tenant>   a sorted set: its ids by when they were used last
--   b:<tenant>   a hash: of each id "<bytes>:<name of its vector set, or nothing>"
--   n            a sorted set: tenants by the bytes they hold; `total` is their sum
--   x            a sorted set: "<id>:<tenant>" by when it ends
--   purges       a sorted set: what was purged last, by number; `told` is the last number, `began` when they began: a
--                Redis that has lost everything counts anew, and all servers see it by that
-- An entry that Redis has let go of by itself is in the lists until somebody comes across it.

local P = KEYS[1]
local FIELDS = {'scope', 'tenant', 'model', 'epoch', 'created_at', 'expires_at', 'embedding', 'body'}
local CHUNK = 200

local function drop(tenant, id)
  local known = redis.call('HGET', P .. 'b:' .. tenant, id)
  if not known then
    redis.call('ZREM', P .. 't:' .. tenant, id)
    redis.call('ZREM', P .. 'x', id .. ':' .. tenant)
    return 0
  end
  local bytes, vectors = string.match(known, '^(%d+):(.*)$')
  redis.call('HDEL', P .. 'b:' .. tenant, id)
  redis.call('ZREM', P .. 't:' .. tenant, id)
  redis.call('ZREM', P .. 'x', id .. ':' .. tenant)
  redis.call('ZINCRBY', P .. 'n', -bytes, tenant)
  redis.call('DECRBY', P .. 'total', bytes)
  if redis.call('HLEN', P .. 'b:' .. tenant) == 0 then
    redis.call('ZREM', P .. 'n', tenant)
  end
  -- Another tenant of the group may have stored another answer to the same question since.
  local owner = redis.call('HGET', P .. 'e:' .. id, 'tenant')
  if not owner or owner == tenant then
    redis.call('DEL', P .. 'e:' .. id)
    if vectors ~= '' then redis.pcall('VREM', P .. vectors, id) end
  end
  return 1
end

-- What is counted for a tenant of whom nothing is listed any more: Redis has let go of the lists.
local function forget(tenant)
  redis.call('DECRBY', P .. 'total', redis.call('ZSCORE', P .. 'n', tenant) or 0)
  redis.call('ZREM', P .. 'n', tenant)
  redis.call('DEL', P .. 'b:' .. tenant)
end

local function drop_oldest(tenant)
  local oldest = redis.call('ZRANGE', P .. 't:' .. tenant, 0, 0)[1]
  if oldest then
    drop(tenant, oldest)
  else
    forget(tenant)
  end
end

local function read(id)
  local found = redis.call('HMGET', P .. 'e:' .. id, unpack(FIELDS))
  return found[1] and {id, unpack(found)}
end

local act = {}

function act.get(id)
  return read(id)
end

-- Its embedding is added afterwards.
function act.add(id, now, num_bytes, tenant_bytes, max_bytes, vectors, ...)
  -- Fails where Redis is full: of a script that has written before, if only a removal, it takes anything.
  redis.call('INCRBY', P .. 'total', 0)
  local fields = {...}
  local tenant, expires_at = fields[2], fields[6]
  local owner = redis.call('HGET', P .. 'e:' .. id, 'tenant')
  drop(owner or tenant, id)
  num_bytes = tonumber(num_bytes)
  for _ = 1, CHUNK do
    if tonumber(redis.call('ZSCORE', P .. 'n', tenant) or 0) + num_bytes <= tonumber(tenant_bytes) then break end
    drop_oldest(tenant)
  end
  for _ = 1, CHUNK do
    if tonumber(redis.call('GET', P .. 'total') or 0) + num_bytes <= tonumber(max_bytes) then break end
    local most = redis.call('ZRANGE', P .. 'n', -1, -1)[1]
    if not most then
      redis.call('DEL', P .. 'total')
      break
    end
    drop_oldest(most)
  end
  local entry = {}
  for i, name in ipairs(FIELDS) do
    entry[2 * i - 1], entry[2 * i] = name, fields[i]
  end
  redis.call('HSET', P .. 'e:' .. id, unpack(entry))
  redis.call('PEXPIREAT', P .. 'e:' .. id, expires_at)
  redis.call('HSET', P .. 'b:' .. tenant, id, num_bytes .. ':' .. vectors)
  redis.call('ZADD', P .. 't:' .. tenant, now, id)
  redis.call('ZADD', P .. 'x', expires_at, id .. ':' .. tenant)
  redis.call('ZINCRBY', P .. 'n', num_bytes, tenant)
  redis.call('INCRBY', P .. 'total', num_bytes)
  return 1
end

-- An embedding was added: the set ends with the last of its entries.
function act.added(vectors, expires_at)
  if redis.call('PEXPIRETIME', P .. vectors) < tonumber(expires_at) then
    redis.call('PEXPIREAT', P .. vectors, expires_at)
  end
end

-- Entries that were found in a vector set; those that are gone leave it.
function act.read(vectors, ...)
  local found = {}
  for _, id in ipairs({...}) do
    local entry = read(id)
    if entry then
      found[#found + 1] = entry
    else
      redis.call('VREM', P .. vectors, id)
    end
  end
  return found
end

function act.touch(id, now)
  local tenant = redis.call('HGET', P .. 'e:' .. id, 'tenant')
  return tenant and redis.call('ZADD', P .. 't:' .. tenant, 'XX', now, id) or 0
end

-- By asking what was told, too; without a word of it where nothing can be written now: that is a read.
local function begin()
  if redis.call('EXISTS', P .. 'began') == 0 then
    redis.pcall('SET', P .. 'began', table.concat(redis.call('TIME'), '.'))
  end
end

-- All servers hear of it, each in its own time: they have entries in memory, too.
function act.tell(purge)
  begin()
  local number = redis.call('INCR', P .. 'told')
  redis.call('ZADD', P .. 'purges', number, number .. ':' .. purge)
  redis.call('ZREMRANGEBYRANK', P .. 'purges', 0, -1001)
end

function act.told(after, began)
  begin()
  local last, begins = tonumber(redis.call('GET', P .. 'told') or 0), redis.call('GET', P .. 'began') or ''
  if after ~= '' and began ~= begins then after = 0 end
  if after == '' or tonumber(after) >= last then return {last, {}, begins} end
  local purges = redis.call('ZRANGEBYSCORE', P .. 'purges', '(' .. after, last)
  for i, purge in ipairs(purges) do
    purges[i] = string.match(purge, '^%d+:(.*)$')
  end
  return {last, purges, begins}
end

function act.delete(id, purge)
  act.tell(purge)
  local tenant = redis.call('HGET', P .. 'e:' .. id, 'tenant')
  return tenant and drop(tenant, id) or 0
end

function act.tenants()
  return redis.call('ZRANGE', P .. 'n', 0, -1)
end

-- Some of a tenant's entries: where the next begin, and how many of these went.
function act.purge(tenant, cursor, model, epoch)
  local scanned = redis.call('HSCAN', P .. 'b:' .. tenant, cursor, 'COUNT', CHUNK)
  local num = 0
  for i = 1, #scanned[2], 2 do
    local id = scanned[2][i]
    local found = redis.call('HMGET', P .. 'e:' .. id, 'model', 'epoch')
    if not found[1] then
      drop(tenant, id)
    elseif (model == '' or found[1] == model) and (epoch == '' or tonumber(found[2]) < tonumber(epoch)) then
      num = num + drop(tenant, id)
    end
  end
  return {scanned[1], num}
end

function act.held()
  local held = {}
  local known = redis.call('ZRANGE', P .. 'n', 0, -1, 'WITHSCORES')
  for i = 1, #known, 2 do
    held[#held + 1] = {known[i], redis.call('HLEN', P .. 'b:' .. known[i]), tonumber(known[i + 1])}
  end
  return held
end

-- Some of what has ended; there may be more where it is as many as this.
function act.sweep(now)
  local ended = redis.call('ZRANGEBYSCORE', P .. 'x', '-inf', now, 'LIMIT', 0, CHUNK)
  for _, member in ipairs(ended) do
    local id, tenant = string.match(member, '^([^:]*):(.*)$')
    drop(tenant, id)
  end
  return #ended
end

function act.ping(writes)
  if writes == '1' then redis.call('SET', P .. 'ping', 1, 'PX', 1000) end
  return redis.call('COMMAND', 'INFO', 'VADD')[1] and 1 or 0
end

local op = table.remove(ARGV, 1)
return act[op](unpack(ARGV))
