// What a run works on: the model with its weights, this rank's data, and the operator over them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/run_config.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/model/program.h"
#include "process.h"

namespace hesspect {

struct Problem {
  std::unique_ptr<Communicator> comm;
  Placement placement;
  int threads = 1;
  at::Device device = at::kCPU;
  std::unique_ptr<Program> program;
  std::vector<std::filesystem::path> weight_files;  // of the checkpoint, if there was one
  std::string weights_format;
  OverlayReport overlay;
  std::int64_t rows = 0;  // of data, all ranks
  std::unique_ptr<HessianOperator> op;
};

/// Reads and checks everything before anything is computed. Collective over host.
/// @throws the same error on every rank
Problem set_up(const RunConfig& config, std::unique_ptr<Communicator> host);

}  // namespace hesspect
