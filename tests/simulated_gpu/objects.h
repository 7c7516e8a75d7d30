// What the handles of CUDA's runtime stand for.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "streams.h"

namespace simulated_gpu {

/// How much of each stream's work is known to be over.
using Clock = std::vector<std::uint64_t>;

struct PastAccess {
  const char* begin;
  const char* end;
  bool writes;
  std::uint64_t time;
  std::string name;
};

struct PutOff {
  std::uint64_t time;
  std::function<void()> run;
};

/// A stream's work from the begin of a capture to its end.
struct Recording {
  std::vector<Work> works;
  std::vector<std::pair<char*, std::string>> before;  // bytes that the works have written meanwhile
  bool is_broken = false;
};

}  // namespace simulated_gpu

struct CUstream_st {
  std::size_t index = 0;
  int device = 0;
  simulated_gpu::Clock clock;
  std::vector<simulated_gpu::PastAccess> accesses;
  std::deque<simulated_gpu::PutOff> put_off;
  std::unique_ptr<simulated_gpu::Recording> recording;
  std::uint64_t recording_id = 0;
};

struct CUevent_st {
  simulated_gpu::Clock clock;
  const simulated_gpu::Recording* recording = nullptr;
};

struct CUgraphNode_st {
  simulated_gpu::Work work;
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};

struct CUgraphExec_st {
  std::vector<simulated_gpu::Work> works;
};

namespace simulated_gpu {

CUstream_st& make_stream(int device);
CUstream_st& stream_of(cudaStream_t stream);

/// The host waits for what that clock counts, or for all that the device has been given.
void wait_for_clock(const Clock& clock);
void wait_for_all(int device);
void catch_up_all();
bool has_put_off(const Clock& clock);

void record_event(CUevent_st& event, CUstream_st& stream);
cudaError_t make_wait(CUstream_st& stream, const CUevent_st& event);

/// Puts memory back to what it was before the capture, which only writes down.
void end_recording(Recording& recording);

}  // namespace simulated_gpu
