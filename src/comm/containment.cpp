#include "hesspect/comm/containment.h"

#include <mpi.h>

#include "hesspect/comm/make_communicator.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/timer.h"
#include "message_guard.h"
#include "mpi_calls.h"

namespace hesspect {
namespace {

constexpr int kHere = 0, kFailed = 1;
constexpr std::chrono::milliseconds kLongestNap{2};

/// Waits for a message with sleeps between two looks. @return false where it is not there in time
bool wait_asleep(MPI_Request& request, double at_most_s, int rank, const char* call) {
  Patience patience(kLongestNap);
  const Timer timer;
  for (int done = 0;; patience.sleep()) {
    check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call, rank);
    if (done != 0) return true;
    if (at_most_s > 0 && timer.elapsed_s() > at_most_s) return false;
  }
}

}  // namespace

std::size_t MessageGuard::add(MPI_Comm comm) {
  members_.push_back(std::make_unique<Member>());
  members_.back()->comm = comm;
  return members_.size() - 1;
}

void MessageGuard::enter(std::size_t number) {
  Member& member = *members_[number];
  if (member.is_closed) throw PeerFailed();
  int rank = 0;
  MPI_Comm_rank(member.comm, &rank);
  member.mine = kHere;
  check_mpi(MPI_Iallreduce(&member.mine, &member.all, 1, MPI_INT, MPI_MAX, member.comm, &member.request),
            "MPI_Iallreduce", rank);
  check_mpi(MPI_Wait(&member.request, MPI_STATUS_IGNORE), "MPI_Wait", rank);
  if (member.all == kHere) return;
  member.is_closed = true;
  throw PeerFailed();
}

bool MessageGuard::is_told() const {
  int found = 0;
  return MPI_Iprobe(MPI_ANY_SOURCE, 0, notices_, &found, MPI_STATUS_IGNORE) == MPI_SUCCESS && found != 0;
}

void MessageGuard::leave() {
  for (const auto& member : members_) {
    if (member->is_closed) continue;
    member->is_closed = true;
    member->mine = kFailed;
    MPI_Iallreduce(&member->mine, &member->all, 1, MPI_INT, MPI_MAX, member->comm, &member->request);
  }
}

void MessageGuard::tell() {
  int rank = 0, size = 1;
  MPI_Comm_rank(notices_, &rank);
  MPI_Comm_size(notices_, &size);
  for (int to = 0; to < size; ++to)
    if (to != rank) {
      sent_.emplace_back();
      MPI_Isend(nullptr, 0, MPI_BYTE, to, 0, notices_, &sent_.back());
    }
}

void MessageGuard::end(const std::vector<int>& failed) {
  int rank = 0;
  MPI_Comm_rank(notices_, &rank);
  for (const int from : failed)
    if (from != rank) MPI_Recv(nullptr, 0, MPI_BYTE, from, 0, notices_, MPI_STATUS_IGNORE);
  MPI_Waitall(static_cast<int>(sent_.size()), sent_.data(), MPI_STATUSES_IGNORE);
  for (const auto& member : members_) {
    MPI_Wait(&member->request, MPI_STATUS_IGNORE);
    MPI_Comm_free(&member->comm);
  }
  members_.clear();
  MPI_Comm_free(&notices_);
}

struct Containment::Impl {
  Communicator& host;
  std::shared_ptr<MessageGuard> guard;  // none: of one rank
  std::unique_ptr<Communicator> world;
  bool has_failed = false, has_told = false, has_met = false;
};

Containment::Containment(Communicator& host) : impl_(std::make_unique<Impl>(Impl{host, {}, {}})) {
  if (host.size() == 1) {
    impl_->world = std::make_unique<LocalCommunicator>();
    return;
  }
  MPI_Comm notices = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &notices), "MPI_Comm_dup", host.rank());
  impl_->guard = std::make_shared<MessageGuard>(notices);
  impl_->world = MpiCommunicator::world(impl_->guard);
}

Containment::~Containment() = default;

Communicator& Containment::world() { return *impl_->world; }

void Containment::fail(bool first) {
  impl_->has_failed = true;
  if (!impl_->guard) return;
  impl_->guard->leave();
  if (!first) return;
  impl_->has_told = true;
  impl_->guard->tell();
}

bool Containment::meet(double at_most_s) {
  if (!impl_->guard) return true;
  MPI_Request request = MPI_REQUEST_NULL;
  const auto& host = dynamic_cast<const MpiCommunicator&>(impl_->host);
  const int rank = host.rank();
  check_mpi(MPI_Ibarrier(host.mpi_comm(), &request), "MPI_Ibarrier", rank);
  if (!wait_asleep(request, at_most_s, rank, "MPI_Ibarrier")) return false;
  // All are out. Who has not heard of a failure (it came after this rank's last message) closes its communicators now.
  if (impl_->host.any(impl_->has_failed)) impl_->guard->leave();
  std::vector<int> told;
  const std::vector<std::string> all = impl_->host.all_gather_bytes(impl_->has_told ? "told" : "");
  for (std::size_t r = 0; r < all.size(); ++r)
    if (!all[r].empty()) told.push_back(static_cast<int>(r));
  impl_->guard->end(told);
  return true;
}

std::string broadcast_patiently(Communicator& comm, const std::string& bytes) {
  if (comm.size() == 1) return bytes;
  const auto& mpi = dynamic_cast<const MpiCommunicator&>(comm);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(mpi.mpi_comm(), &request), "MPI_Ibarrier", comm.rank());
  wait_asleep(request, 0, comm.rank(), "MPI_Ibarrier");
  return comm.broadcast_bytes(bytes);
}

}  // namespace hesspect
