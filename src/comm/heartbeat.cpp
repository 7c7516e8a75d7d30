#include "hesspect/comm/heartbeat.h"

#include <mpi.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <vector>

#include "hesspect/core/errors.h"
#include "hesspect/core/host.h"
#include "hesspect/core/timer.h"
#include "mpi_calls.h"

namespace hesspect {
namespace {

enum Word : int { kBeat, kLast };  // after its last word a rank says no more and is no longer watched

}  // namespace

struct Heartbeat::Impl {
  /// Whom this rank speaks and listens to: rank 0 all others, the others rank 0.
  struct Peer {
    int rank = 0;
    std::string host;
    double silent_s = 0;
    bool has_left = false;
    bool sent_last = false;
    int word = kBeat;  // what `sent` sends
    MPI_Request sent = MPI_REQUEST_NULL;
  };

  double lost_after_s = 0;
  double beat_every_s = 0;
  OnLost on_lost;
  MPI_Comm comm = MPI_COMM_NULL;  // never freed: freeing is collective, and MPI_Finalize cleans up
  int rank = 0;
  std::vector<Peer> peers;  // in order of rank
  int exceptions = std::uncaught_exceptions();

  std::thread thread;
  std::mutex mutex;
  std::condition_variable changed;
  enum { kRunning, kLeaving, kAbandoned } state = kRunning;  // under mutex

  Peer& peer_of(int from) { return peers[rank == 0 ? static_cast<std::size_t>(from - 1) : 0]; }

  void listen() {
    for (;;) {
      int found = 0, word = kBeat;
      MPI_Message message = MPI_MESSAGE_NULL;
      MPI_Status status;
      if (MPI_Improbe(MPI_ANY_SOURCE, 0, comm, &found, &message, &status) != MPI_SUCCESS || found == 0) return;
      // So short a message has come whole: this does not block.
      if (MPI_Mrecv(&word, 1, MPI_INT, &message, MPI_STATUS_IGNORE) != MPI_SUCCESS) return;
      Peer& peer = peer_of(status.MPI_SOURCE);
      peer.silent_s = 0;
      peer.has_left = peer.has_left || word == kLast;
    }
  }

  /// Sends unless the word before it has not even left this host. True if it was sent.
  bool say(Peer& peer, Word word) {
    int done = 0;
    if (MPI_Test(&peer.sent, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done == 0) return false;
    peer.word = word;
    return MPI_Isend(&peer.word, 1, MPI_INT, peer.rank, 0, comm, &peer.sent) == MPI_SUCCESS;
  }

  /// Adds to the silences. True if a peer is lost, which has then been told.
  /// @param awake_s  time that this thread really ran: a suspended job does not find its ranks lost when it goes on
  bool watch(double awake_s) {
    for (Peer& peer : peers) {
      peer.silent_s += awake_s;
      if (peer.has_left || peer.silent_s <= lost_after_s) continue;
      on_lost(peer.rank, peer.host, peer.silent_s);
      return true;
    }
    return false;
  }

  /// Says the last words: rank 0 when it has had everybody else's. True if all has been said and heard.
  bool take_leave() {
    bool all_left = true, all_sent = true;
    for (const Peer& peer : peers) all_left = all_left && peer.has_left;
    if (rank == 0 && !all_left) return false;
    for (Peer& peer : peers) {
      peer.sent_last = peer.sent_last || say(peer, kLast);
      int done = 0;
      if (peer.sent_last) MPI_Test(&peer.sent, &done, MPI_STATUS_IGNORE);
      all_sent = all_sent && done != 0;
    }
    return all_left && all_sent;
  }

  void run() {
    const double look_every_s = std::min(0.1, beat_every_s / 4);
    Patience patience(std::chrono::milliseconds(2));
    Timer since_look;
    double since_beat_s = beat_every_s;
    bool lost = false;
    std::unique_lock<std::mutex> lock(mutex);
    while (state != kAbandoned) {
      const bool leaving = state == kLeaving;
      lock.unlock();
      const double awake_s = std::min(since_look.elapsed_s(), 2 * look_every_s);
      since_look.reset();
      since_beat_s += awake_s;
      listen();
      if (leaving && (lost || take_leave())) return;
      if (since_beat_s >= beat_every_s) {
        since_beat_s = 0;
        for (Peer& peer : peers)
          if (!peer.sent_last) say(peer, kBeat);
      }
      if (!lost) lost = watch(awake_s);
      if (leaving) patience.sleep();
      lock.lock();
      if (!leaving && state == kRunning) changed.wait_for(lock, std::chrono::duration<double>(look_every_s));
    }
  }
};

Heartbeat::Heartbeat(Communicator& world, double lost_after_s, OnLost on_lost) : impl_(std::make_unique<Impl>()) {
  if (world.size() == 1 || lost_after_s <= 0) return;
  if (world.any(!mpi_thread_multiple())) return;

  Impl& impl = *impl_;
  impl.lost_after_s = lost_after_s;
  impl.beat_every_s = std::min(2.0, lost_after_s / 5);
  impl.on_lost = std::move(on_lost);
  impl.rank = world.rank();
  const std::vector<std::string> hosts = world.all_gather_bytes(host_name());
  for (int r = impl.rank == 0 ? 1 : 0; r < (impl.rank == 0 ? world.size() : 1); ++r)
    impl.peers.push_back({.rank = r, .host = hosts[static_cast<std::size_t>(r)]});
  const int rc = MPI_Comm_dup(MPI_COMM_WORLD, &impl.comm);
  if (rc != MPI_SUCCESS)
    throw CommError("MPI_Comm_dup", impl.rank, "MPI_Comm_dup failed on rank " + std::to_string(impl.rank));
  MPI_Comm_set_errhandler(impl.comm, MPI_ERRORS_RETURN);
  impl.thread = std::thread([&impl] { impl.run(); });
}

Heartbeat::~Heartbeat() {
  if (!impl_->thread.joinable()) return;
  const bool unwinding = std::uncaught_exceptions() > impl_->exceptions;
  {
    const std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->state = unwinding ? Impl::kAbandoned : Impl::kLeaving;
  }
  impl_->changed.notify_one();
  impl_->thread.join();
  for (Impl::Peer& peer : impl_->peers) {
    int done = 0;
    if (MPI_Test(&peer.sent, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done != 0) continue;
    impl_.release();  // MPI may still send from it
    return;
  }
}

}  // namespace hesspect
