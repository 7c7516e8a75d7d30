#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>

#include "eigen_lists.h"
#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/krylov/block_lanczos.h"
#include "hesspect/spectrum/eigenvalues.h"
#include "hesspect/spectrum/probe.h"

namespace hesspect {
namespace {

/// The values of a selection's lists, one after the other.
std::vector<double> selected_values(const std::vector<RitzPair>& pairs, const EigenSelection& selection) {
  std::vector<double> values;
  for (const std::size_t i : selection.all()) values.push_back(pairs[i].value);
  return values;
}

class BlockSearch {
 public:
  BlockSearch(LinearOperator& op, const EigenOptions& options)
      : op_(op), options_(options), wanted_(wanted_counts(op.shard().n, options)) {
    if (options.block < 1 || options.max_steps < 1 || !(options.rtol >= 0))
      throw UsageError("block eigenvalues: block and max_steps must be 1 or more, rtol 0 or more");
    const std::int64_t least = static_cast<std::int64_t>(wanted_.all()) + 2 * options.block;
    if (options.max_basis > 0 && options.max_basis < least)
      throw UsageError("block eigenvalues: a basis of " + std::to_string(options.max_basis) +
                       " rows is too small for " + std::to_string(wanted_.all()) + " eigenvalues by blocks of " +
                       std::to_string(options.block) + ": at least " + std::to_string(least));
    std::vector<at::Tensor> starts;
    for (std::int64_t i = 0; i < std::min(options.block, op.shard().n); ++i) starts.push_back(fresh_vector());
    run_ = std::make_shared<BlockLanczos>(op, starts);
  }

  void run(const std::function<void()>& on_step) {
    while (!op_.comm().of_rank0(finished()) && run_->products() < options_.max_steps) {
      if (room() < 1) run_->thick_restart(kept_pairs(run_->ritz_pairs(), wanted_, options_.max_basis - options_.block));
      if (run_->closed() && !restart()) return;
      // Looking costs O(m³): seldom enough not to show, often enough not to waste products.
      const std::int64_t more = std::max(options_.block, run_->products() / 16);
      run_->extend(op_, std::min({more, options_.max_steps - run_->products(), room()}), on_step);
    }
  }

  /// Values and vectors of one look. Collective. The source holds the run.
  EigenResult result(VectorSource* vectors) const {
    const std::vector<RitzPair> pairs = op_.comm().of_rank0(run_->ritz_pairs());
    EigenResult result = listed(pairs, wanted_, options_, run_->rounding(), run_->complete());
    result.steps = run_->products();
    result.thick_restarts = run_->thick_restarts();
    result.method = "block lanczos";
    result.exhausted = run_->complete() &&
                       static_cast<std::int64_t>(wanted_.all()) < options_.top + options_.bottom + options_.magnitude;
    if (vectors == nullptr) return result;
    const auto m = static_cast<std::size_t>(run_->rows());
    const std::vector<std::size_t> indices = select_wanted(pairs, wanted_, run_->complete()).all();
    std::vector<double> coefficients =
        op_.comm().of_rank0(agreed(op_.comm(), [&] { return run_->ritz_coefficients(indices); }));
    *vectors = [run = run_, m, s = std::move(coefficients)](std::size_t i) {
      return run->ritz_vector(std::span(s).subspan(i * m, m));
    };
    return result;
  }

 private:
  at::Tensor fresh_vector() {
    return probe_vector(op_, ProbeDistribution::kGaussian, options_.seed, kBlockProbes + probes_++);
  }

  /// Rows that the basis may still get; each product brings one at most.
  std::int64_t room() const {
    const std::int64_t most = options_.max_basis > 0 ? options_.max_basis : op_.shard().n + options_.block;
    return most - run_->rows() - run_->next_rows();
  }

  /// A block of fresh vectors, as far as there is room.
  bool restart() {
    const std::int64_t count = std::min(options_.block, room());
    bool any = false;
    for (std::int64_t i = 0; i < count; ++i) any = run_->restart(fresh_vector()) || any;
    return any;
  }

  /// Local: rank 0's opinion counts.
  bool finished() const {
    if (run_->rows() == 0) return false;
    if (run_->complete()) return true;
    const std::vector<RitzPair> pairs = run_->ritz_pairs();
    if (!listed(pairs, wanted_, options_, run_->rounding(), false).converged) return false;
    return run_->spaces() == 1 ? !run_->closed() : last_space_adds_nothing(pairs);
  }

  /// After the space has closed T has a diagonal block for each start with fresh vectors. The last one adds nothing if
  /// its own outermost values are converged and the lists are, to tolerance, what they are without it.
  bool last_space_adds_nothing(const std::vector<RitzPair>& pairs) const {
    std::vector<RitzPair> before, own;
    for (const RitzPair& pair : pairs)
      (pair.block + 1 == static_cast<std::size_t>(run_->spaces()) ? own : before).push_back(pair);
    if (own.empty() || before.size() < wanted_.all()) return false;
    const WantedCounts outermost{wanted_.top > 0 ? 1U : 0U, wanted_.bottom > 0 ? 1U : 0U,
                                 wanted_.magnitude > 0 ? 1U : 0U};
    for (const std::size_t i : select_wanted(own, outermost, true).all())
      if (own[i].residual > tolerance(pairs)) return false;
    const std::vector<double> with = selected_values(pairs, select_wanted(pairs, wanted_, false)),
                              without = selected_values(before, select_wanted(before, wanted_, false));
    for (std::size_t i = 0; i < with.size(); ++i)
      if (std::abs(with[i] - without[i]) > tolerance(pairs)) return false;
    return true;
  }

  double tolerance(const std::vector<RitzPair>& pairs) const {
    return std::max(options_.rtol * largest_magnitude(pairs), 2 * run_->rounding());
  }

  LinearOperator& op_;
  EigenOptions options_;
  WantedCounts wanted_;
  std::shared_ptr<BlockLanczos> run_;
  std::uint64_t probes_ = 0;
};

}  // namespace

EigenResult block_eigenvalues(LinearOperator& op, const EigenOptions& options, VectorSource* vectors,
                              const std::function<void()>& on_step) {
  BlockSearch search(op, options);
  search.run(on_step);
  return search.result(vectors);
}

}  // namespace hesspect
