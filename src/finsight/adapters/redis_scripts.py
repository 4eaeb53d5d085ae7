"""The steps of the job queue that must not be half done, in Lua: Redis runs each as a whole, and writes it to its file as a whole.

Every key starts with ``{jobs}:``, which keeps them on one node of a cluster:

- ``job:ID``, a hash; ``events:ID``, its stream
- ``queue``: IDs by the time (ms) from which they may run; ``leases``: IDs by the time at which their lease is over
- ``all:TENANT``: IDs by their number; ``active:TENANT``: those queued or running; ``dead``: IDs by the time they died
- ``content:DIGEST`` and ``client:LENGTH:TENANT:KEY`` → ID; ``hold:WHAT`` → token; ``numbers``, a counter

Times are Redis's own: workers' clocks may differ.
"""

from __future__ import annotations

_COMMON = """
local P = '{jobs}:'
local function now() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
local function job(id) return P .. 'job:' .. id end
local function field(id, name) return redis.call('HGET', job(id), name) end
local function set(id, ...) redis.call('HSET', job(id), ...) end
local function say(id, events, most) -- a cursor is a time and the event's number: a gap is seen by the numbers on both of its sides
  local stream, at = P .. 'events:' .. id, math.max(now(), tonumber(field(id, 'at') or 0))
  local number, size = tonumber(field(id, 'said') or 0), tonumber(field(id, 'size') or 0)
  for _, event in ipairs(events) do
    number, size = number + 1, size + #event
    redis.call('XADD', stream, at .. '-' .. number, 'event', event)
  end
  while most and size > most do
    local gone = {}
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', 100)) do
      if size <= most then break end
      size = size - #entry[2][2]
      gone[#gone + 1] = entry[1]
    end
    if #gone == 0 then size = 0 else redis.call('XDEL', stream, unpack(gone)) end
  end
  set(id, 'at', at, 'said', number, 'size', size)
end
local function state(id, to, error)
  set(id, 'state', to, 'error', error)
  say(id, {cjson.encode({type = 'state', state = to, attempt = tonumber(field(id, 'attempt')), error = error})})
end
local function enqueue(id, at)
  set(id, 'token', 0)
  redis.call('ZREM', P .. 'leases', id)
  redis.call('ZADD', P .. 'queue', at, id)
end
local function finish(id, to, error, keep)
  redis.call('ZREM', P .. 'queue', id)
  redis.call('ZREM', P .. 'leases', id)
  redis.call('SREM', P .. 'active:' .. field(id, 'tenant'), id)
  set(id, 'ended', now(), 'token', 0)
  state(id, to, error)
  if to == 'dead' then redis.call('ZADD', P .. 'dead', now(), id) end
  redis.call('ZREMRANGEBYSCORE', P .. 'dead', '-inf', now() - keep * 1000)
  redis.call('EXPIRE', job(id), keep)
  redis.call('EXPIRE', P .. 'events:' .. id, keep)
  redis.call('EXPIRE', P .. 'content:' .. field(id, 'content'), keep)
end
local function again(id, error, attempts, pause, keep)
  local attempt = tonumber(field(id, 'attempt'))
  if field(id, 'cancel') then finish(id, 'cancelled', '', keep)
  elseif attempt >= attempts then finish(id, 'dead', error, keep)
  else
    enqueue(id, now() + pause * 2 ^ (attempt - 1))
    state(id, 'queued', error)
  end
end
local function holds(id, token) return token ~= '0' and field(id, 'token') == token end
"""

# id, content, tenant, client's key, its seconds, most waiting, most active, then names and values of the job's fields
SUBMIT = (
    _COMMON
    + """
local id, content, tenant, key = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local client = P .. 'client:' .. #tenant .. ':' .. tenant .. ':' .. key -- a tenant may have a colon in its name
if key ~= '' then
  local found = redis.call('GET', client)
  if found and redis.call('EXISTS', job(found)) == 1 then
    if field(found, 'content') ~= content then return {'reused', ''} end
    return {'there', found}
  end
end
local found = redis.call('GET', P .. 'content:' .. content)
local at = found and field(found, 'state')
if at == 'queued' or at == 'running' or at == 'succeeded' then
  if not field(found, 'cancel') then
    if key ~= '' then redis.call('SET', client, found, 'EX', ARGV[5]) end
    return {'there', found}
  end
end
if redis.call('ZCARD', P .. 'queue') >= tonumber(ARGV[6]) then return {'full', ''} end
if redis.call('SCARD', P .. 'active:' .. tenant) >= tonumber(ARGV[7]) then return {'busy', ''} end
local number = redis.call('INCR', P .. 'numbers')
redis.call('HSET', job(id), 'content', content, 'tenant', tenant, 'number', number, 'created', now(), 'attempt', 0, unpack(ARGV, 8))
redis.call('SET', P .. 'content:' .. content, id)
if key ~= '' then redis.call('SET', client, id, 'EX', ARGV[5]) end
redis.call('ZADD', P .. 'all:' .. tenant, number, id)
for _, old in ipairs(redis.call('ZRANGE', P .. 'all:' .. tenant, 0, 9)) do -- those that ended long ago
  if redis.call('EXISTS', job(old)) == 0 then redis.call('ZREM', P .. 'all:' .. tenant, old) end
end
redis.call('SADD', P .. 'active:' .. tenant, id)
enqueue(id, now())
state(id, 'queued', '')
return {'new', id}
"""
)

# worker, lease (ms), attempts, pause (ms), seconds that ended jobs are kept
TAKE = (
    _COMMON
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'leases', '-inf', now())) do
  again(id, 'its worker was lost', tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5])
end
local id = redis.call('ZRANGEBYSCORE', P .. 'queue', '-inf', now(), 'LIMIT', 0, 1)[1]
if not id then return false end
local token = redis.call('INCR', P .. 'numbers')
redis.call('ZREM', P .. 'queue', id)
redis.call('ZADD', P .. 'leases', now() + tonumber(ARGV[2]), id)
local attempt = redis.call('HINCRBY', job(id), 'attempt', 1)
set(id, 'token', token, 'told', 0, 'worker', ARGV[1], 'started', now(), 'stage', '', 'progress', 0)
state(id, 'running', '')
return {id, token, attempt}
"""
)

# id, token, number, lease (ms), most bytes of events, how many events, events, then names and values of the job's fields
TELL = (
    _COMMON
    + """
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 'lost' end
redis.call('ZADD', P .. 'leases', now() + tonumber(ARGV[4]), id)
if tonumber(ARGV[3]) > tonumber(field(id, 'told')) then
  set(id, 'told', ARGV[3])
  local events, said = tonumber(ARGV[6]), {}
  for i = 7, 6 + events do said[#said + 1] = ARGV[i] end
  say(id, said, tonumber(ARGV[5]))
  for i = 7 + events, #ARGV, 2 do set(id, ARGV[i], ARGV[i + 1]) end
end
return field(id, 'cancel') and 'cancel' or 'go on'
"""
)

# id, token, ending, error, attempts, pause (ms), seconds that ended jobs are kept, then names and values of the job's fields
END = (
    _COMMON
    + """
local id, ending, error = ARGV[1], ARGV[3], ARGV[4]
if not holds(id, ARGV[2]) then return 0 end
for i = 8, #ARGV, 2 do set(id, ARGV[i], ARGV[i + 1]) end
if ending == 'given back' and not field(id, 'cancel') then
  redis.call('HINCRBY', job(id), 'attempt', -1)
  enqueue(id, now())
  state(id, 'queued', error)
elseif ending == 'broken' or ending == 'given back' then again(id, error, tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7])
else finish(id, ending, error, ARGV[7]) end
return 1
"""
)

# id, seconds that ended jobs are kept
CANCEL = (
    _COMMON
    + """
local id = ARGV[1]
local at = field(id, 'state')
if at == 'queued' then finish(id, 'cancelled', '', ARGV[2])
elseif at == 'running' and not field(id, 'cancel') then
  set(id, 'cancel', 1)
  say(id, {cjson.encode({type = 'cancel'})})
end
return 1
"""
)

BACKLOG = (
    _COMMON
    + """
local first, oldest = redis.call('ZRANGE', P .. 'queue', 0, 0, 'WITHSCORES'), 0
if first[2] then oldest = math.max(0, now() - tonumber(first[2])) end
return {redis.call('ZCARD', P .. 'queue'), redis.call('ZCARD', P .. 'leases'), redis.call('ZCARD', P .. 'dead'), oldest}
"""
)

# what, token, milliseconds
HOLD = """
local key = '{jobs}:hold:' .. ARGV[1]
local holder = redis.call('GET', key)
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', key, ARGV[2], 'PX', ARGV[3])
return 1
"""

# what, token
RELEASE = """
local key = '{jobs}:hold:' .. ARGV[1]
if redis.call('GET', key) == ARGV[2] then redis.call('DEL', key) end
return 1
"""
