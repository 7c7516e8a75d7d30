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
#include "hesspect/run/ledger.h"
#include "hesspect/run/sources.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "problem.h"

namespace hesspect {

class OneGroup {
 public:
  /// Reads, checks and plans; products are in full precision. Collective over world, which it borrows, as run and argv.
  /// @param top, bottom  eigenvalues that will be wanted, in place of those of run
  /// @throws UsageError where the output may not be written; what a run throws at its start
  OneGroup(const Invocation& run, const std::vector<std::string>& argv, std::int64_t top, std::int64_t bottom,
           Communicator& world);

  HessianOperator& op() { return *group_.op; }
  Problem& problem() { return problem_; }
  const RunConfig& config() const { return config_; }
  Communicator& world() { return world_; }
  std::uint64_t seed() const { return goals_.seed; }
  /// a·b of shards. Collective.
  double dot(const at::Tensor& a, const at::Tensor& b);
  /// What a loss of this size is exact to, at best, in the run's dtype.
  double rounding_of(double loss) const;

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

  const Invocation& run_;
  const std::vector<std::string>& argv_;
  Communicator& world_;
  const RunConfig config_;
  const Timer timer_;
  Timer told_;
  const std::string start_time_;
  Problem problem_;
  Goals goals_;
  RunLayout layout_;
  std::unique_ptr<SourceHashing> hashing_;  // rank 0's
  Group group_;
  std::unique_ptr<Lanczos> lanczos_;
  bool searched_ = false;  // for eigenpairs
  EigenPairs pairs_;
  VectorSource eigenvectors_;
};

}  // namespace hesspect
