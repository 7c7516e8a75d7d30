// Notices ranks that have gone: a killed process the launcher sees at once, a dead or cut-off host nobody does.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// A thread on every rank tells rank 0 that it lives, and rank 0 tells all. Who has not been heard of for
/// `lost_after_s` is lost.
class Heartbeat {
 public:
  /// Called once, from the heartbeat's thread: on rank 0 for the first rank found lost, elsewhere where rank 0 is.
  using OnLost = std::function<void(int rank, const std::string& host, double silent_s)>;

  /// Collective over world, the communicator of all ranks of MPI. Does nothing with one rank, where lost_after_s <= 0,
  /// or where MPI gives no MPI_THREAD_MULTIPLE.
  Heartbeat(Communicator& world, double lost_after_s, OnLost on_lost);
  /// Collective, unless an exception unwinds: a rank that ends in order is not taken for lost.
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
