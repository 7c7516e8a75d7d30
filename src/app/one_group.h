// What the commands have in common that look at the loss itself, all ranks in one group: model and data read, a plan,
// the operator, and its leading eigenvectors.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/comm/communicator.h"
#include "hesspect/config/options.h"
#include "hesspect/core/timer.h"
#include "hesspect/io/result_file.h"
#include "hesspect/krylov/lanczos.h"
#include "hesspect/run/goals.h"
#include "hesspect/run/lanczos_checkpoint.h"
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "problem.h"
#include "run_life.h"

namespace hesspect {

/// The configuration of such a command's Lanczos run. @param top, bottom  eigenvalues that will be wanted
RunConfig one_group_config(RunConfig config, std::int64_t top, std::int64_t bottom);

class OneGroup {
 public:
  /// Reads, checks and plans; products are in full precision. Collective over world, which it borrows, as run and argv.
  /// @param top, bottom  eigenvalues that will be wanted, in place of those of run
  /// @param life         of a run that can be stopped, borrowed; nullptr: of one that can't, whose outputs are checked
  /// @throws UsageError where the output may not be written; what a run throws at its start
  OneGroup(const Invocation& run, const std::vector<std::string>& argv, std::int64_t top, std::int64_t bottom,
           Communicator& world, RunLife* life = nullptr);

  HessianOperator& op() { return *group_.op; }
  Problem& problem() { return problem_; }
  const RunConfig& config() const { return config_; }
  const Plan& plan() const { return layout_.plan; }
  Communicator& world() { return world_; }
  std::uint64_t seed() const { return goals_.seed; }
  /// a·b of shards. Collective.
  double dot(const at::Tensor& a, const at::Tensor& b);
  /// What a loss of this size is exact to, at best, in the run's dtype.
  double rounding_of(double loss) const;

  /// Between products, losses and the like: writes the checkpoint where its time has come, and ends the run where it is
  /// to stop. Lanczos vectors are written every --checkpoint-minutes, and where the run stops. Collective.
  /// @throws RunStopped; InputError where the checkpoint of a stopped run cannot be written
  void pause();
  /// What the command itself has to put into a checkpoint. On rank 0
  void set_progress(std::function<void(LedgerState&)> add) { progress_ = std::move(add); }

  /// By a Lanczos run, once. Collective.
  const EigenPairs& find_eigenpairs();
  /// This rank's shard of the eigenvector at a place in the lists, top first. Collective.
  at::Tensor eigenvector(std::size_t place);

  /// The leading eigenpair of another operator on the same vectors, in no more steps than the own ones may take. Gives
  /// up what the own eigenvectors are made of: those that are wanted are taken before. Collective.
  EigenPairs leading_pair(LinearOperator& op, at::Tensor& vector);

  /// A warning for log and result. All ranks.
  void warn(const std::string& text);
  /// "what: …" at most every half minute.
  void tell(const std::string& text);

  /// Writes the result with all but the command's own part, which `add` puts in, on rank 0. Collective.
  /// @return the exit code: not converged where eigenpairs that were asked for are not
  int finish(const std::function<void(RunResult&)>& add);

 private:
  void write(RunResult& r, const std::function<void(RunResult&)>& add);
  std::unique_ptr<Lanczos> lanczos_run();
  void save(bool stop);
  SourceHashing& hashing() { return life_ != nullptr ? life_->hashing() : *hashing_; }

  const Invocation& run_;
  const std::vector<std::string>& argv_;
  Communicator& world_;
  RunLife* const life_;
  const RunConfig config_;
  const Timer timer_;
  Timer told_;
  const std::string start_time_;
  Problem problem_;
  Goals goals_;
  RunLayout layout_;
  std::unique_ptr<SourceHashing> hashing_;  // without a life
  Group group_;
  std::unique_ptr<Lanczos> lanczos_;
  bool searched_ = false;  // for eigenpairs
  EigenPairs pairs_;
  VectorSource eigenvectors_;
  std::unique_ptr<LanczosCheckpoint> checkpoint_;  // with a life
  std::function<void(LedgerState&)> progress_;
  Timer since_vectors_;
};

}  // namespace hesspect
