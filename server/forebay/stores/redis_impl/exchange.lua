#!lua
-- One exchange of one replica with what all replicas share: what it holds of budgets, what runs, what comes back to
-- buckets, and then its requests, each let in or refused as a whole. The files of `PARTS` in link.py, one after the
-- other, are one script. tenants/limits.py and tenants/buckets.py are the same within one process.
local P = KEYS[1]
local q = cjson.decode(ARGV[1])
local UNIT, EARLY, GRACE, MAX_PROMISES, HORIZON = unpack(q.constants)
local IDLE = 61000 -- after so long a bucket is full again

local time = redis.call('TIME')
local now = q.now or time[1] * 1000 + math.floor(time[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')

local function text(number)
  return string.format('%.0f', number)
end

-- A script that was sent before and arrives late is not to undo what was said since.
local last = tonumber(redis.call('HGET', P .. 'seq', q.replica) or '0')
if q.seq <= last then
  return {'late', text(last)}
end
redis.call('HSET', P .. 'seq', q.replica, text(q.seq))
