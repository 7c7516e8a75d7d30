#include "hesspect/comm/desk.h"

#include <mpi.h>

#include <atomic>
#include <exception>
#include <mutex>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/containment.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"
#include "mpi_calls.h"

namespace hesspect {
namespace {

constexpr int kQuestion = 1, kAnswer = 2;
constexpr std::chrono::microseconds kLongestSleep{1000};
constexpr double kLastSendS = 1;  // for a send in progress when the desk closes

/// One message under way.
struct Transfer {
  std::string bytes;
  MPI_Request request = MPI_REQUEST_NULL;
};

}  // namespace

struct Desk::Impl {
  Answer answer;
  MPI_Comm comm = MPI_COMM_NULL;
  const MpiCommunicator* world = nullptr;  // tells where rank 0 has failed, and will not answer
  int rank = 0;
  int exceptions = std::uncaught_exceptions();
  std::mutex answering;
  std::atomic<bool> closing = false;
  std::thread server;

  std::string reply(int from, const std::string& question) {
    const std::lock_guard<std::mutex> one_at_a_time(answering);
    return answer(from, question);
  }

  /// Waits for a transfer until the desk closes. False if it came to nothing: the peer has gone, which others report.
  bool finish(std::unique_ptr<Transfer> transfer, std::string* received) {
    Patience patience(kLongestSleep);
    const Timer timer;
    double closing_since_s = -1;
    for (;;) {
      int done = 0;
      if (MPI_Test(&transfer->request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
      if (done != 0) break;
      if (closing && closing_since_s < 0) closing_since_s = timer.elapsed_s();
      if (closing_since_s >= 0 && timer.elapsed_s() > closing_since_s + kLastSendS) {
        transfer.release();  // MPI may still read or write these bytes
        return false;
      }
      patience.sleep();
    }
    if (received != nullptr) *received = std::move(transfer->bytes);
    return true;
  }

  bool next_question(int& from, std::string& question) {
    int found = 0;
    MPI_Message message = MPI_MESSAGE_NULL;
    MPI_Status status;
    if (MPI_Improbe(MPI_ANY_SOURCE, kQuestion, comm, &found, &message, &status) != MPI_SUCCESS || found == 0)
      return false;
    int length = 0;
    MPI_Get_count(&status, MPI_BYTE, &length);
    from = status.MPI_SOURCE;
    auto transfer = std::make_unique<Transfer>();
    transfer->bytes.resize(static_cast<std::size_t>(length));
    if (MPI_Imrecv(transfer->bytes.data(), length, MPI_BYTE, &message, &transfer->request) != MPI_SUCCESS) return false;
    return finish(std::move(transfer), &question);
  }

  void serve() {
    Patience patience(kLongestSleep);
    int from = 0;
    std::string question;
    while (!closing) {
      if (!next_question(from, question)) {
        patience.sleep();
        continue;
      }
      auto transfer = std::make_unique<Transfer>();
      transfer->bytes = reply(from, question);
      if (MPI_Isend(transfer->bytes.data(), static_cast<int>(transfer->bytes.size()), MPI_BYTE, from, kAnswer, comm,
                    &transfer->request) == MPI_SUCCESS)
        finish(std::move(transfer), nullptr);
      patience.refresh();
    }
  }
};

Desk::Desk(Communicator& world, Answer answer) : impl_(std::make_unique<Impl>()) {
  impl_->answer = std::move(answer);
  impl_->rank = world.rank();
  if (world.size() == 1) return;
  impl_->world = dynamic_cast<const MpiCommunicator*>(&world);
  agree(world, [] {
    if (!mpi_thread_multiple())
      throw CommError(
          "MPI_Query_thread", 0,
          "this MPI gives no MPI_THREAD_MULTIPLE, which dealing out probes needs: use an MPI built with it");
  });
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &impl_->comm), "MPI_Comm_dup", impl_->rank);
  MPI_Comm_set_errhandler(impl_->comm, MPI_ERRORS_RETURN);
  if (impl_->rank == 0) impl_->server = std::thread([desk = impl_.get()] { desk->serve(); });
}

Desk::~Desk() {
  impl_->closing = true;
  if (impl_->server.joinable()) impl_->server.join();
  // Freeing is collective: a rank that unwinds must not wait for peers that are elsewhere, and MPI_Finalize cleans up.
  if (impl_->comm != MPI_COMM_NULL && std::uncaught_exceptions() == impl_->exceptions) MPI_Comm_free(&impl_->comm);
}

std::string Desk::ask(const std::string& question) {
  if (impl_->rank == 0) return impl_->reply(0, question);
  MPI_Request sent = MPI_REQUEST_NULL;
  check_mpi(MPI_Isend(question.data(), static_cast<int>(question.size()), MPI_BYTE, 0, kQuestion, impl_->comm, &sent),
            "MPI_Isend", impl_->rank);
  Patience patience(kLongestSleep);
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  for (int found = 0;; patience.sleep()) {
    check_mpi(MPI_Improbe(0, kAnswer, impl_->comm, &found, &message, &status), "MPI_Improbe", impl_->rank);
    if (found != 0) break;
    if (impl_->world != nullptr && impl_->world->is_peer_failed()) throw PeerFailed();
  }
  int length = 0;
  MPI_Get_count(&status, MPI_BYTE, &length);
  std::string bytes(static_cast<std::size_t>(length), '\0');
  check_mpi(MPI_Mrecv(bytes.data(), length, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv", impl_->rank);
  check_mpi(MPI_Wait(&sent, MPI_STATUS_IGNORE), "MPI_Wait", impl_->rank);  // done: it has been answered
  return bytes;
}

}  // namespace hesspect
