// Picks the device of each rank and the backend that fits it.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <string_view>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// CUDA devices that this process sees; 0 without a driver, and in builds without CUDA (hesspect/core/gpu_support.h).
int cuda_device_count();

/// The host communicator of all ranks: MPI where there are several, else the local one. Needs a live MpiSession.
std::unique_ptr<Communicator> make_host_communicator();

/// The ranks of a host communicator that pass the same colour, in order of key, then of rank. Collective over host.
std::unique_ptr<Communicator> split(const Communicator& host, int color, int key);

/// The device of this rank. "cpu"; "cuda": by node-local rank, or the only one visible; "auto": CUDA where every rank
/// sees a device, else the CPU. Collective over host.
/// @throws UsageError (on every rank): an unknown name, no GPU, fewer GPUs than ranks on a host, or two ranks on one
/// GPU
c10::Device choose_device(std::string_view request, Communicator& host);

/// The communicator for tensors on `device`: NCCL for several ranks on CUDA, else `host` itself. Collective over host.
/// @throws CommError where NCCL can't be set up
std::unique_ptr<Communicator> make_communicator(c10::Device device, std::unique_ptr<Communicator> host);

}  // namespace hesspect
