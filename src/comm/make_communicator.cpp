#include "hesspect/comm/make_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>

#include "hesspect/comm/agree.h"
#include "hesspect/comm/mpi_communicator.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/gpu_support.h"
#include "hesspect/core/host.h"
#include "hesspect/core/log.h"

namespace hesspect {
namespace {

/// This rank among the ranks of its host, and how many those are.
struct HostPlace {
  std::ptrdiff_t rank, size;
  std::string host;
};

HostPlace host_place(Communicator& comm) {
  const std::string host = host_name();
  const std::vector<std::string> all = comm.all_gather_bytes(host);
  return {std::count(all.begin(), all.begin() + comm.rank(), host), std::ranges::count(all, host), host};
}

/// Two ranks of one GPU, of the same probe group or not, would hang in NCCL or run out of its memory. Collective.
void refuse_shared_gpus(Communicator& host, int device_index) {
  const std::string mine = agreed(host, [&] { return gpu_library().support->device_identity(device_index); });
  std::map<std::string, int> seen;
  const std::vector<std::string> all = host.all_gather_bytes(mine);
  for (std::size_t r = 0; r < all.size(); ++r) {
    const auto [other, fresh] = seen.emplace(all[r], static_cast<int>(r));
    if (!fresh)
      throw UsageError("ranks " + std::to_string(other->second) + " and " + std::to_string(r) + " use the same GPU (" +
                       all[r] + "): start at most one rank per GPU, or use --device cpu");
  }
}

}  // namespace

int cuda_device_count() {
  const GpuSupport* const gpu = gpu_library().support;
  return gpu == nullptr ? 0 : gpu->device_count();
}

std::unique_ptr<Communicator> make_host_communicator() {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised != 0) {
    int size = 1;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size > 1) return MpiCommunicator::world();
  }
  return std::make_unique<LocalCommunicator>();
}

std::unique_ptr<Communicator> split(const Communicator& host, int color, int key) {
  if (const auto* mpi = dynamic_cast<const MpiCommunicator*>(&host)) return mpi->split(color, key);
  if (host.size() > 1)
    throw Error(ExitCode::kInternal, "split: not a host communicator, but one of backend " + host.backend());
  return std::make_unique<LocalCommunicator>();
}

c10::Device choose_device(std::string_view request, Communicator& host) {
  if (request == "cpu") return c10::Device(c10::kCPU);
  if (request != "auto" && request != "cuda")
    throw UsageError("unknown device '" + std::string(request) + "': auto, cpu or cuda");
  const int count = cuda_device_count();
  const GpuLibrary& gpu = gpu_library();
  if (request == "auto" && gpu.is_broken) log_warning("no GPU is used: " + gpu.lack);
  if (host.any(count == 0)) {
    if (request == "auto") return c10::Device(c10::kCPU);
    agree(host, [&] {
      if (count == 0)
        throw UsageError("--device cuda: no usable CUDA device on rank " + std::to_string(host.rank()) +
                         (gpu.lack.empty() ? "" : " (" + gpu.lack + ")"));
    });
  }
  const HostPlace place = host_place(host);
  agree(host, [&] {
    // One visible device each is what Slurm gives with --gpus-per-task.
    if (count > 1 && count < place.size)
      throw UsageError(std::to_string(place.size) + " ranks on " + place.host + " but " + std::to_string(count) +
                       " GPUs: start at most one rank per GPU, or use --device cpu");
  });
  const int index = count == 1 ? 0 : static_cast<int>(place.rank);
  refuse_shared_gpus(host, index);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

std::unique_ptr<Communicator> make_communicator(c10::Device device, std::unique_ptr<Communicator> host) {
  if (device.is_cpu()) return host;
  if (host->size() == 1) return std::make_unique<LocalCommunicator>();
  const GpuLibrary& gpu = gpu_library();
  if (gpu.support == nullptr) throw UsageError("no device of CUDA can be used: " + gpu.lack);
  return gpu.support->make_nccl_communicator(device.index(), std::move(host));
}

}  // namespace hesspect
