// How a run begins: anew, from a checkpoint, or not at all because its result is there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/io/checkpoint.h"
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"

namespace hesspect {

struct RunStart {
  std::optional<int> finished;  // the exit code that the finished run had: nothing is to be done
  bool resumed = false;
  bool fresh = false;  // there was no checkpoint
  LedgerState state;   // of the checkpoint; else run_id and config are set
};

/// How a run starts, as every rank has to know it: rank 0's, of whose state the others get run_id and layout.
/// Collective.
RunStart shared(const RunStart& start, Communicator& world);

/// @throws UsageError if the output is the same file as one of these
void require_no_input(const std::string& output, const std::vector<std::filesystem::path>& inputs);

/// None of a run's outputs is an input, and those beside the result may be written. @param files  the result first
/// @throws UsageError for the first that is or may not, or where the checkpoint's folder is the result
void check_outputs(const RunConfig& config, const std::vector<std::string>& files);

/// Of a run that is never resumed: also the result may be written. @param files  empty ones are left out
/// @throws UsageError for the first output that is an input or may not
void check_new_outputs(const RunConfig& config, const std::vector<std::string>& files);

/// Done, or not converged.
int exit_code_of(const RunResult& result);

/// A checkpoint that is of no use any more: where it cannot be removed, that is no failure of the run.
void remove_or_warn(CheckpointFolder& folder);

/// The folder of a run's checkpoints.
std::string checkpoint_folder(const RunConfig& config);

/// Looks at output and checkpoint, and takes the checkpoint folder's lock. On rank 0 alone, inside `agree`.
/// @throws UsageError: an output or a checkpoint that is there and may not be overwritten, another run at work in the
///         folder, or another configuration than the checkpoint's (naming the first option that differs);
///         InputError: what cannot be written or read
RunStart begin_run(const Invocation& run, CheckpointFolder& folder);

/// Whether a checkpoint holds digests of files, for which those of this start must be complete.
bool knows_digests(const LedgerState& state);

/// @throws InputError where model, weights or data are not those that the checkpoint was made with
void require_same_sources(const LedgerState& state, const SourceHashing& now, const std::string& folder);

}  // namespace hesspect
