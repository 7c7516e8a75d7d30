#include "streams.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>

#include "memory.h"
#include "objects.h"

namespace simulated_gpu {
namespace {

constexpr std::size_t kAccessesKept = 1 << 14;

Clock& host_clock() {
  static Clock& clock = *new Clock;
  return clock;
}

std::vector<std::unique_ptr<CUstream_st>>& streams() {
  static auto& all = *new std::vector<std::unique_ptr<CUstream_st>>;
  return all;
}

std::uint64_t at(const Clock& clock, std::size_t stream) { return stream < clock.size() ? clock[stream] : 0; }

void join(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (std::size_t s = 0; s < other.size(); ++s) clock[s] = std::max(clock[s], other[s]);
}

/// Does what has been put off on any stream up to that clock.
void catch_up_to(const Clock& clock) {
  for (const auto& stream : streams())
    while (!stream->put_off.empty() && stream->put_off.front().time <= at(clock, stream->index)) {
      const std::function<void()> run = std::move(stream->put_off.front().run);
      stream->put_off.pop_front();
      run();
    }
}

bool overlap(const PastAccess& past, const Access& now) {
  const auto* const begin = static_cast<const char*>(now.begin);
  return past.begin < begin + now.bytes && begin < past.end;
}

void require_order(const CUstream_st& stream, const Work& work) {
  for (const auto& other : streams()) {
    if (other.get() == &stream) continue;
    for (const PastAccess& past : other->accesses) {
      if (past.time <= at(stream.clock, other->index)) continue;
      for (const Access& now : work.accesses)
        if ((past.writes || now.writes) && overlap(past, now))
          refuse(work.name + (now.writes ? " writes" : " reads") + " memory on stream " + std::to_string(stream.index) +
                 " that " + past.name + (past.writes ? " writes" : " reads") + " on stream " +
                 std::to_string(other->index) + ", and neither waits for the other");
    }
  }
}

void require_own_memory(const CUstream_st& stream, const Work& work) {
  for (const Access& access : work.accesses) {
    if (access.bytes == 0 || !is_of_device(access.begin)) continue;
    if (device_of(access.begin) != stream.device) refuse(work.name + " uses the memory of another device");
    if (!is_allocated(access.begin, access.bytes)) refuse(work.name + " uses memory that is not allocated");
  }
}

void note(CUstream_st& stream, const Work& work) {
  if (stream.accesses.size() + work.accesses.size() > kAccessesKept) {
    const std::uint64_t seen = at(host_clock(), stream.index);  // by whatever comes next
    std::erase_if(stream.accesses, [&](const PastAccess& past) { return past.time <= seen; });
    if (stream.accesses.size() > kAccessesKept)
      stream.accesses.erase(stream.accesses.begin(), stream.accesses.begin() + kAccessesKept / 2);
  }
  for (const Access& access : work.accesses) {
    const auto* const begin = static_cast<const char*>(access.begin);
    stream.accesses.push_back({begin, begin + access.bytes, access.writes, stream.clock[stream.index], work.name});
  }
}

/// What the bytes were that work is going to write.
void keep_bytes(Recording& recording, const Work& work) {
  for (const Access& access : work.accesses) {
    if (!access.writes || access.bytes == 0) continue;
    auto* const alias = static_cast<char*>(host_alias(access.begin));
    recording.before.push_back({alias, std::string(alias, access.bytes)});
  }
}

void begin_work(CUstream_st& stream, const Work& work) {
  join(stream.clock, host_clock());
  stream.clock[stream.index]++;
  require_own_memory(stream, work);
  if (stream.recording != nullptr) return;  // it is done when the graph is launched
  require_order(stream, work);
  note(stream, work);
}

}  // namespace

void refuse(const std::string& what) {
  std::fprintf(stderr, "simulated GPU: %s\n", what.c_str());
  std::abort();
}

std::recursive_mutex& simulation() {
  static auto& lock = *new std::recursive_mutex;
  return lock;
}

CUstream_st& make_stream(int device) {
  auto stream = std::make_unique<CUstream_st>();
  stream->index = streams().size();
  stream->device = device;
  stream->clock.resize(stream->index + 1);
  streams().push_back(std::move(stream));
  return *streams().back();
}

CUstream_st& stream_of(cudaStream_t stream) {
  static auto& own = *new std::vector<CUstream_st*>(kMostDevices, nullptr);
  // 1 and 2 are the handles of the legacy and of the thread's default stream.
  if (reinterpret_cast<std::uintptr_t>(stream) > 2) return *stream;
  CUstream_st*& found = own[static_cast<std::size_t>(current_device())];
  if (found == nullptr) found = &make_stream(current_device());
  return *found;
}

void submit(cudaStream_t handle, Work work) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  begin_work(stream, work);
  catch_up_to(stream.clock);
  if (stream.recording != nullptr) keep_bytes(*stream.recording, work);
  if (stream.recording == nullptr || work.runs_while_recorded) work.run();
  if (stream.recording != nullptr) stream.recording->works.push_back(std::move(work));
}

void also_writes(cudaStream_t handle, const std::string& name, const void* begin, std::size_t bytes) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  const Work work{.name = name, .accesses = {{begin, bytes, true}}, .run = {}};
  require_own_memory(stream, work);
  if (stream.recording != nullptr) return keep_bytes(*stream.recording, work);
  require_order(stream, work);
  note(stream, work);
}

void submit_for_later(cudaStream_t handle, Work work) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  if (stream.recording != nullptr) return submit(handle, std::move(work));
  begin_work(stream, work);
  stream.put_off.push_back({stream.clock[stream.index], std::move(work.run)});
}

void catch_up(cudaStream_t handle) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  join(stream.clock, host_clock());
  catch_up_to(stream.clock);
}

void catch_up_all() {
  const std::lock_guard lock(simulation());
  for (const auto& stream : streams()) catch_up_to(stream->clock);
}

bool is_recording(cudaStream_t handle) {
  const std::lock_guard lock(simulation());
  return stream_of(handle).recording != nullptr;
}

cudaError_t wait_for(cudaStream_t handle) {
  const std::lock_guard lock(simulation());
  CUstream_st& stream = stream_of(handle);
  if (stream.recording != nullptr) {
    stream.recording->is_broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  wait_for_clock(stream.clock);
  return cudaSuccess;
}

void wait_for_clock(const Clock& clock) {
  catch_up_to(clock);
  join(host_clock(), clock);
}

bool has_put_off(const Clock& clock) {
  return std::any_of(streams().begin(), streams().end(), [&](const auto& stream) {
    return !stream->put_off.empty() && stream->put_off.front().time <= at(clock, stream->index);
  });
}

void wait_for_all(int device) {
  for (const auto& stream : streams())
    if (stream->device == device) wait_for_clock(stream->clock);
}

void record_event(CUevent_st& event, CUstream_st& stream) {
  join(stream.clock, host_clock());
  event.clock = stream.clock;
  event.recording = stream.recording.get();
}

cudaError_t make_wait(CUstream_st& stream, const CUevent_st& event) {
  if (stream.recording.get() != event.recording) return cudaErrorStreamCaptureIsolation;
  join(stream.clock, event.clock);
  return cudaSuccess;
}

void end_recording(Recording& recording) {
  // Nothing of what is recorded is done.
  for (auto each = recording.before.rbegin(); each != recording.before.rend(); ++each)
    std::memcpy(each->first, each->second.data(), each->second.size());
  recording.before.clear();
}

}  // namespace simulated_gpu
