// What the communicators of a contained run share: see containment.h.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace hesspect {

class MessageGuard {
 public:
  /// @param notices  of all ranks, for notices of failures alone
  explicit MessageGuard(MPI_Comm notices) : notices_(notices) {}

  /// Takes a communicator. Each rank of it does. @return its number here
  std::size_t add(MPI_Comm comm);
  /// Before each message of a communicator. @throws PeerFailed
  void enter(std::size_t number);
  /// Whether a rank has told that it failed.
  bool is_told() const;
  /// This rank is out of the run: says so on all communicators, in the place of their next message.
  void leave();
  /// Sends the notice of this rank's failure.
  void tell();
  /// When all ranks are out. @param failed  the ranks that have told. Frees what is held
  void end(const std::vector<int>& failed);

 private:
  struct Member {
    MPI_Comm comm = MPI_COMM_NULL;
    bool is_closed = false;
    int mine = 0, all = 0;  // of the message under way
    MPI_Request request = MPI_REQUEST_NULL;
  };
  MPI_Comm notices_;
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<MPI_Request> sent_;
};

}  // namespace hesspect
