#include "allocation_meter.h"

#include <c10/core/Allocator.h>

#include <algorithm>
#include <mutex>

#include "hesspect/core/memory.h"

namespace hesspect {
namespace {

/// A look at the heap takes tens of microseconds. Between two of them tensors grow by no more than this or this part of
/// them; what they have grown since the last one is added.
constexpr std::int64_t kFine_bytes = 1 << 14, kFineShare = 256;

}  // namespace

struct AllocationMeter::Reports final : c10::MemoryReportingInfoBase {
  explicit Reports(c10::Device the_device) : device(the_device), heap_at_start(heap_bytes_in_use()) {}

  void reportMemoryUsage(void*, std::int64_t bytes, std::size_t, std::size_t, c10::Device where) override {
    if (where.type() != device.type()) return;
    const std::lock_guard lock(mutex);
    tensors += bytes;
    most_tensors = std::max(most_tensors, tensors);
    if (tensors < seen_tensors + std::max(kFine_bytes, seen_tensors / kFineShare)) return;
    seen_tensors = tensors;
    peak = std::max(peak, held());
  }
  bool memoryProfilingEnabled() const override { return true; }

  std::int64_t held() const { return device.is_cpu() ? heap_bytes_in_use() - heap_at_start : tensors; }

  std::mutex mutex;  // autograd runs CUDA's backward on a thread of its own
  c10::Device device;
  std::int64_t heap_at_start;
  std::int64_t tensors = 0, most_tensors = 0;
  std::int64_t seen_tensors = 0, peak = 0;  // when the heap was last looked at
};

AllocationMeter::AllocationMeter(c10::Device device)
    : reports_(std::make_shared<Reports>(device)), guard_(c10::DebugInfoKind::PROFILER_STATE, reports_) {}

AllocationMeter::~AllocationMeter() = default;

std::int64_t AllocationMeter::held_bytes() const {
  const std::lock_guard lock(reports_->mutex);
  return reports_->held();
}

std::int64_t AllocationMeter::peak_bytes() const {
  const std::lock_guard lock(reports_->mutex);
  const std::int64_t unseen = reports_->most_tensors - reports_->seen_tensors;
  return std::max(reports_->peak + unseen, reports_->held());
}

}  // namespace hesspect
