-- Requests: all that one needs of limits and budgets, or nothing.
local totals = {} -- held by all, by budget and window
local spares = {} -- what this replica holds of it and nobody uses

-- What is left of a budget for this replica.
local function left_of(key, amount, spare)
  if not totals[key] then
    totals[key], spares[key] = 0, spare
    for _, held in ipairs(redis.call('HVALS', P .. 'b:' .. key)) do
      totals[key] = totals[key] + tonumber(held)
    end
  end
  return amount - totals[key] + spares[key]
end

local runs = {} -- by party: of the others, and of this replica

local function running(party, mine)
  if not runs[party] then
    local others, fields = 0, redis.call('HGETALL', P .. 'c:' .. party)
    for i = 1, #fields, 2 do
      local count, until_ms = string.match(fields[i + 1], '^(%d+)|(%d+)$')
      if fields[i] ~= q.replica and tonumber(until_ms) > now then
        others = others + tonumber(count)
      end
    end
    runs[party] = {others = others, mine = mine}
  end
  return runs[party]
end

local function wait_for_place(m, count, limit, duration_ms)
  local num_promises, kept = redis.call('ZCARD', m.by_due), 0
  if not m.found and num_promises > 0 then
    kept = redis.call('ZCOUNT', m.by_due, '-inf', text(now + duration_ms))
  end
  if count + kept < limit then
    return 0
  end
  local number = num_promises + (m.found and 0 or 1)
  local root = math.floor(math.sqrt(100 * limit))
  return math.max(1, math.floor(number * duration_ms * (root + 10) / (limit * root)))
end

-- The limit that makes it wait longest: its number (0 requests, 1 tokens, 2 concurrency), how long, and whether a place
-- is all that it lacks.
local function refusal(m, ask)
  local found = m.found
  local limit, longest, only_a_place = 0, 0, false
  if m.requests then
    longest = wait(m.requests, UNIT - (found and found.requests or 0))
  end
  if m.tokens then
    local ms = wait(m.tokens, ask.held - (found and found.tokens or 0))
    if ms > longest then
      limit, longest = 1, ms
    end
  end
  if ask.concurrency > 0 then
    local r = running(ask.party, ask.in_flight)
    local ms = wait_for_place(m, r.others + r.mine, ask.concurrency, ask.duration_ms)
    if ms > longest then
      limit, longest, only_a_place = 2, ms, longest == 0
    end
  end
  return longest > 0 and {limit = limit, wait = longest, only_a_place = only_a_place} or nil
end

local function promise(m, whose, ask, due, number, refused)
  local found = m.found
  if found then
    remove(m, found)
  elseif not refused then
    return
  end
  if due - now > HORIZON or redis.call('ZCARD', m.by_due) >= MAX_PROMISES then
    if found then
      give_back(m, found)
    end
    return
  end
  local requests, tokens = found and found.requests or 0, found and found.tokens or 0
  if refused and m.requests then
    set_aside(m.requests, UNIT - requests)
    requests = UNIT
  end
  if refused and m.tokens and ask.held > tokens then
    set_aside(m.tokens, ask.held - tokens)
    tokens = ask.held
  end
  add(m, whose, due, number, requests, tokens)
end

local function let_in(m, ask)
  if m.found then
    remove(m, m.found)
  end
  if m.requests then
    take(m.requests, UNIT, m.found and m.found.requests or 0)
  end
  if m.tokens then
    take(m.tokens, ask.held, m.found and m.found.tokens or 0)
  end
  if ask.concurrency > 0 then
    local r = running(ask.party, ask.in_flight)
    r.mine = r.mine + 1
    redis.call('HSET', P .. 'c:' .. ask.party, q.replica, text(r.mine) .. '|' .. text(now + q.lease_ms))
    redis.call('PEXPIRE', P .. 'c:' .. ask.party, text(q.lease_ms))
  end
end

local function with_left(answer, asks)
  for _, ask in ipairs(asks) do
    local m = meters[ask.party]
    answer[#answer + 1] = m.requests and math.max(0, available(m.requests)) or -1
    answer[#answer + 1] = m.tokens and math.max(0, available(m.tokens)) or -1
  end
  return answer
end

-- By how much more the replica holds, what of that is the request's (at least its floor, which was checked), and whether
-- it needs more than is left. A budget that is claimed twice, as hard and as soft, is taken from once.
local function grant(taken, key, amount, need, _, hard, reserve, spare)
  if not open then
    return 0, need, 0
  end
  local left = left_of(key, amount, spare) + (taken[key] or 0)
  local given = hard == 1 and math.min(need, left) or need
  local more = 0
  if not taken[key] then
    more = math.max(0, given + reserve - spares[key])
    if hard == 1 then
      more = math.max(0, math.min(more, amount - totals[key]))
    end
    if more > 0 then
      redis.call('HINCRBY', P .. 'b:' .. key, q.replica, text(more))
    end
    totals[key] = totals[key] + more
    spares[key] = spares[key] + more - given
    taken[key] = given
  end
  return more, given, left < need and 1 or 0
end

local function decide(number, whose, can_wait, parties, claims)
  for i, claim in ipairs(claims) do
    local key, amount, _, floor, hard, _, spare = unpack(claim)
    if hard == 1 and not open then
      return {3, i - 1}
    end
    if hard == 1 and left_of(key, amount, spare) < floor then
      return {1, i - 1, left_of(key, amount, spare)}
    end
  end
  local asks, refusals, longest = {}, {}, nil
  for i, p in ipairs(parties) do
    local ask = {party = p[1], held = p[4], concurrency = p[5], duration_ms = p[6], in_flight = p[7]}
    local m = meter(ask.party, p[2], p[3])
    m.found = look_up(m, whose)
    asks[i] = ask
    refusals[i] = refusal(m, ask) or false
    if refusals[i] and (not longest or refusals[i].wait > refusals[longest].wait) then
      longest = i
    end
  end
  if longest then
    local came_as_told, only_a_place = false, true
    for i, ask in ipairs(asks) do
      came_as_told = came_as_told or meters[ask.party].found
      only_a_place = only_a_place and (not refusals[i] or refusals[i].only_a_place)
    end
    local stays = can_wait == 1 and came_as_told and only_a_place
    local retry_s = math.ceil(refusals[longest].wait / 1000)
    for i, ask in ipairs(asks) do
      local m = meters[ask.party]
      promise(m, whose, ask, stays and now or now + retry_s * 1000, number, not stays and refusals[i])
    end
    if stays then
      return {4}
    end
    return with_left({2, longest - 1, refusals[longest].limit, retry_s}, asks)
  end
  for _, ask in ipairs(asks) do
    let_in(meters[ask.party], ask)
  end
  local answer, taken = with_left({0}, asks), {}
  for _, claim in ipairs(claims) do
    for _, number in ipairs({grant(taken, unpack(claim))}) do
      answer[#answer + 1] = number
    end
  end
  return answer
end

local answers = {}
for i, ask in ipairs(q.asks) do
  answers[i] = decide(text(q.seq) .. '.' .. i, unpack(ask))
end
for party, m in pairs(meters) do
  store(party, m)
end
return {'done', run, open and 1 or 0, answers, fleet}
