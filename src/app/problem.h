// What a run works on: the model with its weights and the data, and a group's operator over them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/run_config.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/curvature/parts.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"
#include "hesspect/plan/plan.h"
#include "hesspect/run/group.h"
#include "process.h"

namespace hesspect {

/// Model and data, read and checked on every rank, before the ranks are divided into groups.
struct Problem {
  Placement placement;
  int threads = 1;
  at::Device device = at::kCPU;
  std::int64_t process_bytes = 0;  // resident before the model was read
  std::unique_ptr<Program> program;
  std::int64_t model_parameters = 0;                // of the program before --params and --exclude chose
  std::vector<std::string> selected;                // parameter tensors that they chose; none: all
  std::vector<std::filesystem::path> weight_files;  // of the state dict, if there was one
  std::string weights_format;
  std::vector<std::string> weights_changes;  // a sentence each: what was done to make the state dicts' names fit
  OverlayReport overlay;
  std::vector<std::string> warnings;  // told in the log when the run began
  std::string left_out_warning;       // of these, what is told of rows that are left out; empty: none are
  std::string row_warning;            // and of rows that don't stand alone
  std::unique_ptr<ArrayFile> file;
  DatasetSpec spec;
  RowsInUse rows_in_use;  // of tables whose other rows parameters and vectors leave out
  HessianOptions options;
  std::int64_t rows = 0;       // of data, all
  std::int64_t row_bytes = 0;  // of one
  /// --other-data: rows that are compared with these.
  std::unique_ptr<ArrayFile> other_file;
  DatasetSpec other_spec;
  std::int64_t other_rows = 0;
  std::string row_check;  // what the check found that the loss is a sum over rows: "passed", "assumed: …"
  /// This rank's rows, where they stay from one run to the next (resident.h).
  struct LoadedRows {
    int ranks = 0, rank = 0;  // of the group
    DataShard shard;
  };
  bool keeps_rows = false;
  std::optional<LoadedRows> loaded_rows;
};

/// What a program without weights, exported on the meta device, gets where no state dict gives them.
enum class Weights { kRequired, kStandIns };

/// Reads and checks everything before anything is computed. Collective over world.
/// @param threads  a rank; 0: as configured
/// @param phases   the rank's clock, which the operator will use too; nullptr: none
/// @throws the same error on every rank
Problem read_problem(const RunConfig& config, int threads, Weights weights, Phases* phases, Communicator& world);

/// Lays other weights over a problem that has been read: a new program of the same file, its rows in use those that are
/// known. All else stays. What is found of the weights, and told, is what read_problem finds and tells. Collective.
/// @param config   that of the problem, but for --weights
/// @param layout   of the problem's program, which need not be there any more
/// @return whether the problem is as it was but for the weights; else (other ties, say) it has to be read anew
/// @throws the same error on every rank; the problem then has no program
bool read_other_weights(const RunConfig& config, const ParameterLayout& layout, Phases* phases, Problem& problem,
                        Communicator& world);

/// The diagonal blocks that the user asks for. @throws InputError for one that matches nothing
std::vector<Part> blocks_of(const PartsConfig& config, const ParameterLayout& layout);

/// Where the parameter tensors lie in the flat vector, and their names.
ParameterParts parameter_parts(const Program& program);

/// The problem's program with other weights, on the CPU.
struct OtherProgram {
  std::unique_ptr<Program> program;  // its parameters laid out, or left in the file, as the problem's are
  std::vector<std::filesystem::path> files;
};
/// @throws InputError as a run with these weights, or where they tie other parameters
OtherProgram program_with(const RunConfig& config, const std::string& weights, const Problem& problem);

/// From the program's parameters to those that another state dict has: the step between them, [n], in host memory.
struct StepToWeights {
  at::Tensor step;
  std::vector<std::string> other_buffers;  // which the state dict has other numbers for, and the program keeps its own
  std::vector<std::filesystem::path> files;
};
/// @throws InputError as a run with these weights, or where they tie other parameters
StepToWeights step_to_weights(const RunConfig& config, const std::string& weights, const Problem& problem);

/// The first rows of the data, at most so many.
DataShard first_rows(const Problem& problem, std::int64_t rows);

/// Divides the world as the plan says, neighbours together, and loads each rank's rows. Collective over world.
Group make_group(Problem& problem, const Plan& plan, Communicator& world);

}  // namespace hesspect
