// A run within a process that goes on: where it fails on one rank alone, it ends on all of them, and they can talk
// again.
//
//   Containment contained(host);                       // for each run
//   try { work(contained.world()); } catch (...) { failure = current_failure(); contained.fail(); }
//   if (!contained.meet(kMeetAtMost_s)) abort_job(…);   // one of them did not come
//
// Every message of the run's communicators begins with a word on which all of their ranks must agree: "here". A rank
// that has failed says "failed" in the place of the next one, on each of them; whoever waits there or comes there
// later throws PeerFailed instead of waiting for ever, and does the same on its own way out. So no message is under
// way on any of them when all have left, and they can be freed. A rank that waits for an answer of the desk hears of it
// by a notice. The word costs some microseconds a message; a run that is alone in its process goes without it, and one
// rank needs none.
#pragma once

#include <memory>
#include <string>

#include "hesspect/comm/communicator.h"
#include "hesspect/core/errors.h"

namespace hesspect {

/// Another rank has failed. What went wrong is that rank's to say.
class PeerFailed : public Error {
 public:
  PeerFailed() : Error(ExitCode::kCommFailed, "another rank has failed") {}
};

class Containment {
 public:
  /// Collective over host, which must be a communicator of all ranks of MPI, and is borrowed.
  explicit Containment(Communicator& host);
  ~Containment();
  Containment(const Containment&) = delete;
  Containment& operator=(const Containment&) = delete;

  /// The run's communicator of all ranks.
  Communicator& world();
  /// This rank has failed, and is out of the run. @param first  not because of another's failure
  void fail(bool first);
  /// Waits, asleep, until every rank is out of the run, by whatever way. Collective; nothing of the run is used after
  /// it. @return false where one has not come in time
  bool meet(double at_most_s);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Waits, asleep, for what rank 0 says. Collective over comm; the ranks may come hours apart.
std::string broadcast_patiently(Communicator& comm, const std::string& bytes);

}  // namespace hesspect
