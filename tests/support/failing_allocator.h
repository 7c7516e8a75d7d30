// LibTorch's CPU allocator, one allocation of which fails where a test says so.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <cstdint>
#include <cstring>
#include <new>

namespace hesspect::test {

/// In place of the usual allocator while it lives.
class FailingAllocator final : public c10::Allocator {
 public:
  FailingAllocator() : usual_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this); }
  ~FailingAllocator() override { c10::SetCPUAllocator(usual_); }

  /// The allocation after `count` others fails, once. Those of single numbers neither fail nor count.
  void fail_after(std::int64_t count) { left_ = count; }
  /// Calls the failure off. @return whether it has happened
  bool has_failed() {
    const bool failed = left_ < 0;
    left_ = kNever;
    return failed;
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    if (bytes >= kSmallest && left_ != kNever && left_-- == 0) throw std::bad_alloc();
    return usual_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return usual_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }

 private:
  static constexpr std::size_t kSmallest = 64;
  static constexpr std::int64_t kNever = std::int64_t{1} << 62;
  c10::Allocator* usual_;
  std::int64_t left_ = kNever;
};

}  // namespace hesspect::test
