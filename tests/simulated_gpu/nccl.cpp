// NCCL's messages between processes of one host, by memory that they share. A message is work on the stream that it is
// given, and comes back when all ranks have sent theirs.
#include <fcntl.h>
#include <nccl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>

#include "memory.h"
#include "streams.h"

namespace {

constexpr int kMostRanks = 8;
constexpr std::size_t kPartBytes = 1 << 20;
constexpr int kWaitFor_s = 300;

struct Shared {
  std::atomic<unsigned> arrived, round;
  char parts[kMostRanks][kPartBytes];
};

std::size_t bytes_of(ncclDataType_t type) { return type == ncclFloat64 ? 8 : 4; }

}  // namespace

struct ncclComm {
  Shared* shared = nullptr;
  int rank = 0, size = 1;

  void meet() const {
    const unsigned round = shared->round.load();
    if (shared->arrived.fetch_add(1) + 1 == static_cast<unsigned>(size)) {
      shared->arrived = 0;
      shared->round.fetch_add(1);
      return;
    }
    const std::time_t begin = std::time(nullptr);
    while (shared->round.load() == round) {
      if (std::time(nullptr) - begin > kWaitFor_s)
        simulated_gpu::refuse("a rank waits for a message of NCCL that others don't send");
      usleep(20);
    }
  }
};

namespace {

/// Goes through a message part by part: `send` says where a rank's bytes of it are, `receive` gets all ranks' parts.
void in_parts(const ncclComm& comm, std::size_t bytes, const std::function<const char*(std::size_t at)>& send,
              const std::function<void(std::size_t at, std::size_t length)>& receive) {
  for (std::size_t at = 0; at < bytes; at += kPartBytes) {
    const std::size_t length = std::min(kPartBytes, bytes - at);
    if (const char* const own = send(at)) std::memcpy(comm.shared->parts[comm.rank], own, length);
    comm.meet();
    receive(at, length);
    comm.meet();
  }
}

template <class T>
void add_parts(const ncclComm& comm, void* out, std::size_t length) {
  T* const sums = static_cast<T*>(out);
  for (std::size_t i = 0; i < length / sizeof(T); ++i) {
    T sum = reinterpret_cast<const T*>(comm.shared->parts[0])[i];
    for (int r = 1; r < comm.size; ++r) sum += reinterpret_cast<const T*>(comm.shared->parts[r])[i];
    sums[i] = sum;
  }
}

void add_parts(const ncclComm& comm, ncclDataType_t type, void* out, std::size_t length) {
  type == ncclFloat64 ? add_parts<double>(comm, out, length) : add_parts<float>(comm, out, length);
}

ncclResult_t on(cudaStream_t stream, const char* name, const void* from, std::size_t from_bytes, void* to,
                std::size_t to_bytes, std::function<void(const char* from, char* to)> work) {
  if (from_bytes == 0) return ncclSuccess;
  if (!simulated_gpu::is_of_device(from) || !simulated_gpu::is_of_device(to)) return ncclInvalidArgument;
  simulated_gpu::submit(stream,
                        {.name = name, .accesses = {{from, from_bytes, false}, {to, to_bytes, true}}, .run = [=] {
                           work(static_cast<const char*>(simulated_gpu::host_alias(from)),
                                static_cast<char*>(simulated_gpu::host_alias(to)));
                         }});
  return ncclSuccess;
}

}  // namespace

extern "C" {

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "an error of the simulated NCCL";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }
ncclResult_t ncclGetVersion(int* version) { return *version = NCCL_VERSION_CODE, ncclSuccess; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static int made = 0;
  std::snprintf(id->internal, sizeof id->internal, "/simulated_nccl.%d.%d", static_cast<int>(getpid()), made++);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t*) {
  if (size > kMostRanks) return ncclInvalidArgument;
  const int file = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
  if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
  void* const at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (at == MAP_FAILED) return ncclSystemError;
  *comm = new ncclComm{static_cast<Shared*>(at), rank, size};
  (*comm)->meet();
  if (rank == 0) shm_unlink(id.internal);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  munmap(comm->shared, sizeof(Shared));
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) { return ncclCommDestroy(comm); }
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* state) { return *state = ncclSuccess, ncclSuccess; }

ncclResult_t ncclAllReduce(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  if (op != ncclSum) return ncclInvalidArgument;
  const std::size_t bytes = count * bytes_of(type);
  return on(stream, "ncclAllReduce", from, bytes, to, bytes, [=](const char* own, char* out) {
    in_parts(
        *comm, bytes, [=](std::size_t at) { return own + at; },
        [=](std::size_t at, std::size_t length) { add_parts(*comm, type, out + at, length); });
  });
}

ncclResult_t ncclAllGather(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  return on(stream, "ncclAllGather", from, bytes, to, bytes * static_cast<std::size_t>(comm->size),
            [=](const char* own, char* out) {
              in_parts(
                  *comm, bytes, [=](std::size_t at) { return own + at; },
                  [=](std::size_t at, std::size_t length) {
                    for (int r = 0; r < comm->size; ++r)
                      std::memcpy(out + static_cast<std::size_t>(r) * bytes + at, comm->shared->parts[r], length);
                  });
            });
}

ncclResult_t ncclReduceScatter(const void* from, void* to, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  if (op != ncclSum) return ncclInvalidArgument;
  const std::size_t bytes = count * bytes_of(type);
  return on(stream, "ncclReduceScatter", from, bytes * static_cast<std::size_t>(comm->size), to, bytes,
            [=](const char* own, char* out) {
              for (int target = 0; target < comm->size; ++target)
                in_parts(
                    *comm, bytes, [=](std::size_t at) { return own + static_cast<std::size_t>(target) * bytes + at; },
                    [=](std::size_t at, std::size_t length) {
                      if (target == comm->rank) add_parts(*comm, type, out + at, length);
                    });
            });
}

ncclResult_t ncclBroadcast(const void* from, void* to, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * bytes_of(type);
  return on(stream, "ncclBroadcast", from, bytes, to, bytes, [=](const char* own, char* out) {
    in_parts(
        *comm, bytes, [=](std::size_t at) { return comm->rank == root ? own + at : nullptr; },
        [=](std::size_t at, std::size_t length) { std::memcpy(out + at, comm->shared->parts[root], length); });
  });
}

}  // extern "C"
