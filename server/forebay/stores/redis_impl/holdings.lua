-- What the replica says of itself: absolute amounts, of which it alone writes its own.
if q.seed_begins then
  redis.call('HSET', P .. 'seeding', q.replica, q.seed_begins)
end
for _, held in ipairs(q.own) do
  local key, value, lasts_ms = unpack(held)
  redis.call('HSET', P .. 'b:' .. key, q.replica, text(value))
  if lasts_ms > 0 then
    redis.call('PEXPIRE', P .. 'b:' .. key, text(lasts_ms))
  end
end
for _, running in ipairs(q.running) do
  local party, count = unpack(running)
  if count > 0 then
    redis.call('HSET', P .. 'c:' .. party, q.replica, text(count) .. '|' .. text(now + q.lease_ms))
    redis.call('PEXPIRE', P .. 'c:' .. party, text(q.lease_ms))
  else
    redis.call('HDEL', P .. 'c:' .. party, q.replica)
  end
end
for _, refund in ipairs(q.refunds) do
  local party, requests, tokens, amount = unpack(refund)
  local m = meter(party, requests, tokens)
  if m.tokens then
    give(m.tokens, amount)
  end
end
