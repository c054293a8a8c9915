-- Sends one body to one or several paths in turn, checks every response, and prints the counts as one line of JSON.
-- Arguments: body file, content type, accepted type, expected labels ("7" or "7,1,..."), path, path...

local ffi = require("ffi")
local threads = {}
wrong = 0

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  file:close()
  wrk.headers["Content-Type"], wrk.headers["Accept"] = args[2], args[3]
  labels, requests, turn, right = {}, {}, 0, nil
  for label in args[4]:gmatch("%d+") do table.insert(labels, tonumber(label)) end
  for i = 5, #args do table.insert(requests, wrk.format(nil, args[i])) end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

local function json_is_right(body)
  local count = 0
  for label in body:gmatch('"label":%s*(%d+)') do
    count = count + 1
    if tonumber(label) ~= labels[count] then return false end
  end
  return count == #labels
end

-- The .npy header is padded so that the float32 rows of ten, which end the file, begin at a multiple of 64.
local function npy_is_right(body)
  local start = #body - #labels * 40
  if start < 64 or start % 64 ~= 0 then return false end
  local values = ffi.cast("const float *", ffi.cast("const char *", body) + start)
  for row = 1, #labels do
    local best = 0
    for column = 1, 9 do
      if values[(row - 1) * 10 + column] > values[(row - 1) * 10 + best] then best = column end
    end
    if best ~= labels[row] then return false end
  end
  return true
end

-- Skip the check of a body that equals one already checked, to leave the CPU to the server.
function response(status, headers, body)
  if status == 200 and body == right then return end
  local is_right = body:sub(1, 6) == "\147NUMPY" and npy_is_right or json_is_right
  if status == 200 and is_right(body) then right = body else wrong = wrong + 1 end
end

function done(summary, latency)
  local all = 0
  for _, thread in ipairs(threads) do all = all + thread:get("wrong") end
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "socket": %d, "timeout": %d, "status": %d, "wrong": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write, errors.timeout, errors.status, all
  ))
end
