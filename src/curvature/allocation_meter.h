// Measures what tensors take on one device while something runs. LibTorch's allocators report every block that they
// hand out or take back, on the CPU and on CUDA alike, to the meter of the thread (autograd's threads inherit it).
#pragma once

#include <c10/core/Device.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>

namespace hesspect {

/// Counts from its construction on. Earlier blocks that are freed meanwhile count on CUDA, but not on the CPU. Slows
/// allocations down a little. A thread has one at a time.
class AllocationMeter {
 public:
  explicit AllocationMeter(c10::Device device);
  ~AllocationMeter();
  AllocationMeter(const AllocationMeter&) = delete;
  AllocationMeter& operator=(const AllocationMeter&) = delete;

  /// Bytes held now above those at the start.
  std::int64_t held_bytes() const;
  /// The most that held_bytes() has been.
  std::int64_t peak_bytes() const;

 private:
  struct Reports;
  std::shared_ptr<Reports> reports_;
  c10::DebugInfoGuard guard_;
};

}  // namespace hesspect
