// Ranks that talk through NCCL; tensors on CUDA devices, one device per rank.
#pragma once

#include <memory>

#include "hesspect/comm/communicator.h"

namespace hesspect {

/// The NCCL backend: one communicator and one stream of its own. A call waits for work queued on the current stream,
/// and returns when its message is through; while waiting it polls ncclCommGetAsyncError, so that a peer's failure ends
/// in CommError{call, rank} (the communicator aborted) and not in a hang. Host values go through `host`. Collective
/// over host.
/// @param device  this rank's own CUDA device, its CUDA index, which choose_device has seen to
/// @throws CommError where NCCL can't be set up
std::unique_ptr<Communicator> make_nccl_communicator(int device, std::unique_ptr<Communicator> host);

}  // namespace hesspect
