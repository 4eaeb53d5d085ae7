-- For wrk: distinct texts, one a request, from the file of JSON bodies that BENCH_BODIES names; each thread begins elsewhere.
-- With BENCH_PAUSE each client waits before it asks: at random, so many milliseconds on average.
local bodies, threads = {}, {}
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = os.getenv("BENCH_KEY") }

function setup(thread)
  thread:set("number", #threads)
  threads[#threads + 1] = thread
end

function init()
  at = math.floor(#bodies / 8) * number
  good, bad = 0, 0
end

function request()
  at = at % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[at])
end

local pause = tonumber(os.getenv("BENCH_PAUSE"))
if pause then
  function delay() return math.floor(-math.log(1 - math.random()) * pause + 0.5) end
end

function response(status)
  if status == 200 then good = good + 1 else bad = bad + 1 end
end

function done(summary, latency)
  local good, bad, errors = 0, 0, summary.errors
  for _, thread in ipairs(threads) do
    good, bad = good + thread:get("good"), bad + thread:get("bad")
  end
  io.write(string.format('{"statuses":{"200":%d,"other":%d,"lost":%d},"seconds":%.3f,"p50":%.3f,"p99":%.3f}\n',
    good, bad, errors.connect + errors.read + errors.write + errors.timeout, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
