// Questions that any rank may put to rank 0 at any time. A thread of rank 0 answers them while its own computation, and
// any collective it waits in, go on: so dealing out work makes no rank wait for another's product.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "hesspect/comm/communicator.h"

namespace hesspect {

class Desk {
 public:
  /// Called on rank 0 alone, one call at a time, from the desk's thread or (rank 0's own questions) the asking one.
  /// Must not throw and must not communicate.
  using Answer = std::function<std::string(int rank, const std::string& question)>;

  /// Collective over world, the communicator of all ranks of MPI. With one rank no thread is started.
  /// @param answer  used on rank 0
  /// @throws CommError where MPI gives no MPI_THREAD_MULTIPLE and there are several ranks
  Desk(Communicator& world, Answer answer);
  /// Not collective. Rank 0 stops answering: every rank must have had its last answer (a barrier sees to it).
  ~Desk();
  Desk(const Desk&) = delete;
  Desk& operator=(const Desk&) = delete;

  /// Not collective; one question at a time per rank. Waits for the answer (about a millisecond), sleeping, not
  /// spinning.
  std::string ask(const std::string& question);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace hesspect
