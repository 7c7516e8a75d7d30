// Streams, events and graphs of simulated GPUs.
//
// Work is done at once, in the order in which it is given. What a GPU would be free to do in another order is found by
// clocks: each stream counts its work, an event takes a stream's clock with it, and two pieces of work of which neither
// waits for the other must not touch the same bytes, or the program ends with a line that names both. Copies from and
// to page-locked memory of the host are put off as long as nothing waits for them, so that memory that is written to or
// read too early gives a wrong number.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "refuse.h"

namespace simulated_gpu {

struct Access {
  const void* begin;  // the program's address
  std::size_t bytes;
  bool writes;
};

struct Work {
  std::string name;
  std::vector<Access> accesses;
  std::function<void()> run;
  bool runs_while_recorded = true;  // with what it writes put back at the end
  // Of a copy: where from and to.
  const void* from = nullptr;
  void* to = nullptr;
};

/// All of the simulation is behind one lock.
std::recursive_mutex& simulation();

/// Does the work on a stream, or writes it down where the stream records. Null is the current device's own stream.
void submit(cudaStream_t stream, Work work);

/// To be called by work that is being done, before it writes to memory that it has only then got.
void also_writes(cudaStream_t stream, const std::string& name, const void* begin, std::size_t bytes);

/// As submit, but put off until something waits for the stream.
void submit_for_later(cudaStream_t stream, Work work);

/// Does what has been put off and comes before whatever the stream is given now.
void catch_up(cudaStream_t stream);

/// The host waits. cudaErrorStreamCaptureUnsupported where the stream records.
cudaError_t wait_for(cudaStream_t stream);
bool is_recording(cudaStream_t stream);

int current_device();

}  // namespace simulated_gpu
