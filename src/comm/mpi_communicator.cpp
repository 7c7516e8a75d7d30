#include "hesspect/comm/mpi_communicator.h"

#include <mpi.h>

#include <ATen/ATen.h>

#include <algorithm>
#include <climits>
#include <exception>

#include "hesspect/comm/tensor_checks.h"
#include "hesspect/core/buffer_sizes.h"
#include "message_guard.h"
#include "mpi_calls.h"

namespace hesspect {

namespace {

void require_cpu(const char* call, const at::Tensor& tensor) {
  require_message(call, tensor);
  if (!tensor.is_cpu())
    throw Error(ExitCode::kInternal, std::string(call) + ": the MPI backend sends CPU tensors, not one on " +
                                         tensor.device().str() + "; use the NCCL backend");
}

MPI_Datatype mpi_type(const at::Tensor& tensor) { return tensor.scalar_type() == at::kFloat ? MPI_FLOAT : MPI_DOUBLE; }

char* bytes_of(const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()); }

/// `count` entries of each rank's segment, the segments `stride` entries apart: a piece of a message that is cut in
/// pieces.
class PieceType {
 public:
  PieceType(MPI_Datatype element, std::int64_t count, std::int64_t stride_bytes) {
    MPI_Datatype piece = MPI_DATATYPE_NULL;
    MPI_Type_contiguous(static_cast<int>(count), element, &piece);
    MPI_Type_create_resized(piece, 0, stride_bytes, &type_);
    MPI_Type_free(&piece);
    MPI_Type_commit(&type_);
  }
  ~PieceType() { MPI_Type_free(&type_); }
  PieceType(const PieceType&) = delete;
  PieceType& operator=(const PieceType&) = delete;
  MPI_Datatype get() const { return type_; }

 private:
  MPI_Datatype type_ = MPI_DATATYPE_NULL;
};

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm comm, std::int64_t max_message_bytes, std::shared_ptr<MessageGuard> guard)
    : comm_(comm), max_message_bytes_(max_message_bytes), guard_(std::move(guard)) {
  MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &size_);
  if (guard_) guard_number_ = guard_->add(comm_);
}

void MpiCommunicator::enter() const {
  if (guard_) guard_->enter(guard_number_);
}

bool MpiCommunicator::is_peer_failed() const { return guard_ && guard_->is_told(); }

std::unique_ptr<MpiCommunicator> MpiCommunicator::world(std::int64_t max_message_bytes) {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup", 0);
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(comm, max_message_bytes, nullptr));
}

std::unique_ptr<MpiCommunicator> MpiCommunicator::world(std::shared_ptr<MessageGuard> guard) {
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup", 0);
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(comm, kMaxMessageBytes, std::move(guard)));
}

std::unique_ptr<MpiCommunicator> MpiCommunicator::split(int color, int key) const {
  enter();
  MPI_Comm comm = MPI_COMM_NULL;
  check(MPI_Comm_split(comm_, color, key, &comm), "MPI_Comm_split");
  return std::unique_ptr<MpiCommunicator>(new MpiCommunicator(comm, max_message_bytes_, guard_));
}

MpiCommunicator::~MpiCommunicator() {
  if (guard_) return;  // frees it when all ranks have left the run
  // Freeing is collective: a rank that unwinds must not wait for peers that are elsewhere.
  if (std::uncaught_exceptions() > 0) return;
  int finalised = 0;
  MPI_Finalized(&finalised);
  if (finalised == 0) MPI_Comm_free(&comm_);
}

void MpiCommunicator::check(int rc, const char* call) const { check_mpi(rc, call, rank_); }

/// Entries of `element_bytes` that one message may hold.
std::int64_t MpiCommunicator::piece(std::int64_t element_bytes) const {
  return std::clamp<std::int64_t>(max_message_bytes_ / element_bytes, 1, INT_MAX / 2);
}

/// send(offset in bytes, entries) for the pieces of a message of `count` entries, in order.
template <class Send>
void MpiCommunicator::in_pieces(std::int64_t count, std::int64_t element_bytes, const char* call, Send&& send) const {
  const std::int64_t step = piece(element_bytes);
  for (std::int64_t at = 0; at < count; at += step)
    check(send(at * element_bytes, static_cast<int>(std::min(step, count - at))), call);
}

void MpiCommunicator::all_reduce_sum(at::Tensor& tensor) {
  require_cpu("all_reduce_sum", tensor);
  enter();
  in_pieces(tensor.numel(), tensor.element_size(), "MPI_Allreduce", [&](std::int64_t at, int count) {
    return MPI_Allreduce(MPI_IN_PLACE, bytes_of(tensor) + at, count, mpi_type(tensor), MPI_SUM, comm_);
  });
}

void MpiCommunicator::all_gather(const at::Tensor& shard, at::Tensor& full) {
  require_cpu("all_gather", shard);
  require_shards("all_gather", full, shard, size_);
  enter();
  const std::int64_t m = shard.numel(), item = shard.element_size();
  const std::int64_t step = std::max<std::int64_t>(1, piece(item) / size_);
  for (std::int64_t at = 0; at < m; at += step) {
    const std::int64_t count = std::min(step, m - at);
    const PieceType piece(mpi_type(shard), count, m * item);
    check(MPI_Allgather(bytes_of(shard) + at * item, static_cast<int>(count), mpi_type(shard),
                        bytes_of(full) + at * item, 1, piece.get(), comm_),
          "MPI_Allgather");
  }
}

// Every rank sends each other one its segment, and adds up what comes in, in rank order: as much traffic as a reduction
// by MPI, whose order of addition depends on the message's length. So it is bitwise the same however messages are cut
// or joined.
void MpiCommunicator::reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) {
  require_cpu("reduce_scatter_sum", full);
  require_shards("reduce_scatter_sum", full, shard, size_);
  const std::int64_t m = shard.numel(), item = shard.element_size();
  const std::int64_t most = std::min(piece(item), kSumAtOnceBytes / item);
  const std::int64_t step = std::max<std::int64_t>(1, most / size_);
  const at::Tensor received = at::empty({size_, std::min(m, step)}, full.options());
  enter();
  for (std::int64_t at = 0; at < m; at += step) {
    const std::int64_t count = std::min(step, m - at);
    const PieceType segment(mpi_type(full), count, m * item);
    check(MPI_Alltoall(bytes_of(full) + at * item, 1, segment.get(), bytes_of(received), static_cast<int>(count),
                       mpi_type(full), comm_),
          "MPI_Alltoall");
    at::Tensor sum = shard.narrow(0, at, count);
    const at::Tensor parts = received.view({-1}).narrow(0, 0, size_ * count).view({size_, count});
    sum.copy_(parts[0]);
    for (int r = 1; r < size_; ++r) sum.add_(parts[r]);
  }
}

// --- begun only -----------------------------------------------------------------------------------------------------

class MpiCommunicator::Gathering final : public Pending {
 public:
  Gathering(MpiCommunicator& comm, const at::Tensor& shard, const at::Tensor& full)
      : comm_(comm), shard_(shard), full_(full) {
    const std::int64_t m = shard.numel(), item = shard.element_size();
    const std::int64_t step = std::max<std::int64_t>(1, comm.piece(item) / comm.size_);
    for (std::int64_t at = 0; at < m; at += step) {
      const std::int64_t count = std::min(step, m - at);
      const PieceType piece(mpi_type(shard), count, m * item);  // MPI keeps what a message under way needs of it
      requests_.push_back(MPI_REQUEST_NULL);
      comm.check(MPI_Iallgather(bytes_of(shard) + at * item, static_cast<int>(count), mpi_type(shard),
                                bytes_of(full) + at * item, 1, piece.get(), comm.comm_, &requests_.back()),
                 "MPI_Iallgather");
    }
  }

  void poll() override {
    int done = 0;
    comm_.check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
                "MPI_Iallgather");
  }
  void wait() override {
    comm_.check(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), MPI_STATUSES_IGNORE),
                "MPI_Iallgather");
  }

 private:
  MpiCommunicator& comm_;
  at::Tensor shard_, full_;  // stay
  std::vector<MPI_Request> requests_;
};

/// A sum goes in pieces, each begun when the one before it is over, so that what is received takes little memory. The
/// ranks poll at times of their own: collectives, which all ranks must begin in one order, would be mixed up with
/// others. Messages between two ranks are matched in the order of these alone.
class MpiCommunicator::Summing final : public Pending {
 public:
  Summing(MpiCommunicator& comm, const at::Tensor& full, const at::Tensor& shard)
      : comm_(comm), full_(full), shard_(shard), place_(comm.summing_.insert(comm.summing_.end(), this)) {
    comm_.move_sums();
  }
  ~Summing() override {
    if (!over_) comm_.summing_.erase(place_);
  }

  void poll() override { comm_.move_sums(); }
  void wait() override {
    while (!over_) comm_.summing_.front()->go_on(/*waits=*/true);
  }

  /// @return whether anything has come of it
  bool go_on(bool waits) {
    if (!requests_.empty()) {
      const int count = static_cast<int>(requests_.size());
      int done = 1;
      comm_.check(waits ? MPI_Waitall(count, requests_.data(), MPI_STATUSES_IGNORE)
                        : MPI_Testall(count, requests_.data(), &done, MPI_STATUSES_IGNORE),
                  "a sum over ranks");
      if (done == 0) return false;
      requests_.clear();
      add_piece();
    }
    if (next_ < shard_.numel()) {
      begin_piece();
    } else {
      over_ = true;
      comm_.summing_.erase(place_);
    }
    return true;
  }

 private:
  static constexpr int kTag = 1;

  void begin_piece() {
    const std::int64_t m = shard_.numel(), item = shard_.element_size(), ranks = comm_.size_;
    const std::int64_t most = std::min(comm_.piece(item), kSumAtOnceBytes / item);
    count_ = std::min(std::max<std::int64_t>(1, most / ranks), m - next_);
    if (!comm_.received_.defined() || comm_.received_.scalar_type() != shard_.scalar_type() ||
        comm_.received_.numel() < ranks * count_)
      comm_.received_ = at::empty({ranks * count_}, shard_.options());
    for (int r = 0; r < comm_.size_; ++r) {
      if (r == comm_.rank_) continue;
      requests_.push_back(MPI_REQUEST_NULL);
      comm_.check(MPI_Irecv(bytes_of(comm_.received_) + r * count_ * item, static_cast<int>(count_), mpi_type(shard_),
                            r, kTag, comm_.comm_, &requests_.back()),
                  "MPI_Irecv");
      requests_.push_back(MPI_REQUEST_NULL);
      comm_.check(MPI_Isend(bytes_of(full_) + (r * m + next_) * item, static_cast<int>(count_), mpi_type(shard_), r,
                            kTag, comm_.comm_, &requests_.back()),
                  "MPI_Isend");
    }
    if (requests_.empty()) add_piece();
  }

  /// In rank order, as reduce_scatter_sum does.
  void add_piece() {
    const std::int64_t m = shard_.numel();
    at::Tensor sum = shard_.narrow(0, next_, count_);
    const at::Tensor mine = full_.view({-1}).narrow(0, comm_.rank_ * m + next_, count_);
    for (int r = 0; r < comm_.size_; ++r) {
      const at::Tensor part = r == comm_.rank_ ? mine : comm_.received_.narrow(0, r * count_, count_);
      if (r == 0)
        sum.copy_(part);
      else
        sum.add_(part);
    }
    next_ += count_;
  }

  MpiCommunicator& comm_;
  at::Tensor full_, shard_;
  std::list<Summing*>::iterator place_;
  std::int64_t next_ = 0, count_ = 0;  // entries that are over, and of the piece under way
  bool over_ = false;
  std::vector<MPI_Request> requests_;
};

void MpiCommunicator::move_sums() {
  while (!summing_.empty() && summing_.front()->go_on(/*waits=*/false)) {
  }
}

std::unique_ptr<Pending> MpiCommunicator::begin_all_gather(const at::Tensor& shard, at::Tensor& full) {
  require_cpu("begin_all_gather", shard);
  require_shards("begin_all_gather", full, shard, size_);
  if (guard_) return Communicator::begin_all_gather(shard, full);  // nothing is under way when a contained run fails
  return std::make_unique<Gathering>(*this, shard, full);
}

std::unique_ptr<Pending> MpiCommunicator::begin_reduce_scatter_sum(at::Tensor& full, at::Tensor& shard) {
  require_cpu("begin_reduce_scatter_sum", full);
  require_shards("begin_reduce_scatter_sum", full, shard, size_);
  if (guard_) return Communicator::begin_reduce_scatter_sum(full, shard);
  return std::make_unique<Summing>(*this, full, shard);
}

void MpiCommunicator::broadcast(at::Tensor& tensor, int root) {
  require_cpu("broadcast", tensor);
  enter();
  in_pieces(tensor.numel(), tensor.element_size(), "MPI_Bcast", [&](std::int64_t at, int count) {
    return MPI_Bcast(bytes_of(tensor) + at, count, mpi_type(tensor), root, comm_);
  });
}

void MpiCommunicator::all_reduce_sum(std::span<double> values) {
  const std::size_t n = values.size(), ranks = static_cast<std::size_t>(size_);
  if (n == 0 || ranks == 1) return;
  // Rank 0 adds for all: in rank order, and with no table of everybody's values on every rank.
  const bool adds = rank_ == 0;
  std::vector<double> all(adds ? n * ranks : 0);
  enter();
  check(
      MPI_Gather(values.data(), static_cast<int>(n), MPI_DOUBLE, all.data(), static_cast<int>(n), MPI_DOUBLE, 0, comm_),
      "MPI_Gather");
  if (adds) std::copy_n(all.begin(), n, values.begin());
  for (std::size_t r = 1; adds && r < ranks; ++r)
    for (std::size_t i = 0; i < n; ++i) values[i] += all[r * n + i];
  check(MPI_Bcast(values.data(), static_cast<int>(n), MPI_DOUBLE, 0, comm_), "MPI_Bcast");
}

std::vector<std::string> MpiCommunicator::all_gather_bytes(const std::string& bytes) {
  const std::size_t ranks = static_cast<std::size_t>(size_);
  const std::uint64_t mine = bytes.size();
  std::vector<std::uint64_t> lengths(ranks);
  enter();
  check(MPI_Allgather(&mine, 1, MPI_UINT64_T, lengths.data(), 1, MPI_UINT64_T, comm_), "MPI_Allgather");
  std::uint64_t total = 0;
  for (const std::uint64_t length : lengths) total += length;

  std::vector<std::string> all(ranks);
  if (total <= static_cast<std::uint64_t>(piece(1))) {
    std::vector<int> counts(ranks), offsets(ranks);
    for (std::size_t r = 0, at = 0; r < ranks; at += lengths[r++]) {
      counts[r] = static_cast<int>(lengths[r]);
      offsets[r] = static_cast<int>(at);
    }
    std::string joined(total, '\0');
    enter();  // again, for there may be no memory for what comes
    check(MPI_Allgatherv(bytes.data(), static_cast<int>(mine), MPI_BYTE, joined.data(), counts.data(), offsets.data(),
                         MPI_BYTE, comm_),
          "MPI_Allgatherv");
    for (std::size_t r = 0; r < ranks; ++r)
      all[r] = joined.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(counts[r]));
    return all;
  }
  for (std::size_t r = 0; r < ranks; ++r) all[r] = broadcast_bytes(bytes, static_cast<int>(r));
  return all;
}

std::string MpiCommunicator::broadcast_bytes(const std::string& bytes, int root) {
  std::uint64_t length = bytes.size();
  enter();
  check(MPI_Bcast(&length, 1, MPI_UINT64_T, root, comm_), "MPI_Bcast");
  std::string sent = rank_ == root ? bytes : std::string(length, '\0');
  enter();  // again, for there may be no memory for what comes
  in_pieces(static_cast<std::int64_t>(length), 1, "MPI_Bcast",
            [&](std::int64_t at, int count) { return MPI_Bcast(sent.data() + at, count, MPI_BYTE, root, comm_); });
  return sent;
}

void MpiCommunicator::barrier() {
  enter();
  check(MPI_Barrier(comm_), "MPI_Barrier");
}

}  // namespace hesspect
