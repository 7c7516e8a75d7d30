// Work on a GPU whose launches are recorded once and then made all at once (a CUDA graph). It pays where the host takes
// longer to launch kernels one by one than the GPU to run them, as in the sweeps of a small micro-batch.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace hesspect {

/// Recorded launches. They read and write the memory that the work did when it was recorded, with the same scalars.
class LaunchGraph {
 public:
  virtual ~LaunchGraph() = default;
  /// Enqueues them on the current stream.
  virtual void replay() = 0;
};

/// Records on a stream of its own. What the work allocates while it is recorded comes from one pool, which all graphs
/// of a recorder share: they are replayed one after the other, and nothing in it outlives a replay.
class LaunchRecorder {
 public:
  virtual ~LaunchRecorder() = default;
  /// Does the work on the stream of record(), so that libraries make there what they need, and waits for it.
  virtual void rehearse(const std::function<void()>& work) = 0;
  /// Records the launches of the work, none of which is made.
  /// @throws std::exception where the work waits for the GPU, or reads or writes memory of the host. Nothing has been
  ///         done then, and the process can go on.
  virtual std::unique_ptr<LaunchGraph> record(const std::function<void()>& work) = 0;
  /// Waits until all that was enqueued on the current stream is done.
  virtual void wait() = 0;
  /// The pool's memory.
  virtual std::int64_t bytes() const = 0;
};

/// nullptr on a CPU, or where the build knows no GPU.
std::unique_ptr<LaunchRecorder> launch_recorder(c10::Device device);

}  // namespace hesspect
