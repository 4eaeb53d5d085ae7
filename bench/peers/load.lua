-- For wrk: distinct texts one a request, from the file of JSON bodies that the environment names; each thread begins elsewhere.
local bodies, threads = {}, 0
for line in io.lines(os.getenv("BENCH_BODIES")) do bodies[#bodies + 1] = line end
local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = os.getenv("BENCH_KEY") }

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init()
  at = math.floor(#bodies / 8) * (number or 0)
end

function request()
  at = at % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[at])
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    "JSON{\"requests\":%d,\"seconds\":%.3f,\"p50\":%.3f,\"p99\":%.3f,\"bad\":%d,\"lost\":%d}\n",
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
