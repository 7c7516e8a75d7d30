// Work on a device beside what its current stream is doing. On CPUs there is nothing beside: work is done at once.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <memory>
#include <optional>
#include <utility>

#include "hesspect/comm/pending.h"

namespace hesspect {

class SideStream {
 public:
  explicit SideStream(c10::Device device) : device_(device) {
    if (device.is_cuda())
      stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/true);
  }

  /// Work that begins when all that the current stream has been given so far is over. The memory that it uses must be
  /// there longer than both streams use it.
  template <class Work>
  void run(Work&& work) {
    if (!stream_) return work();
    c10::Event before(device_.type());
    before.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    before.block(*stream_);
    const c10::StreamGuard guard(*stream_);
    work();
  }

  /// What has been run so far, to be waited for: by the current stream, and by the host.
  std::unique_ptr<Pending> mark() {
    if (!stream_) return std::make_unique<AlreadyDone>();
    c10::Event over(device_.type());
    over.record(*stream_);
    return std::make_unique<Mark>(device_, std::move(over));
  }

 private:
  class Mark final : public Pending {
   public:
    Mark(c10::Device device, c10::Event over) : device_(device), over_(std::move(over)) {}
    void wait() override {
      over_.block(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
      over_.synchronize();  // host memory that it has read is written to again
    }

   private:
    c10::Device device_;
    c10::Event over_;
  };

  c10::Device device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace hesspect
