#include "block_steps.h"

#include <ATen/ATen.h>

#include <cmath>

#include "hesspect/comm/agree.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/directions.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/krylov/scaled_operator.h"

namespace hesspect {
namespace {

/// The part's entries of a whole vector [n], on this rank's shard of the part's vectors.
at::Tensor shard_of_part(const PartOperator& op, const Part& part, const at::Tensor& whole) {
  std::vector<at::Tensor> pieces;
  for (const IndexRange& range : part.ranges) pieces.push_back(whole.narrow(0, range.begin, range.size()));
  const at::Tensor all = at::cat(pieces);
  at::Tensor local = at::zeros({op.shard().chunk}, op.options());
  local.narrow(0, 0, op.shard().size()).copy_(all.narrow(0, op.shard().begin(), op.shard().size()));
  return local;
}

class ByBlock {
 public:
  ByBlock(OneGroup& run, const LossAround& around, const AdamScale& adam, bool check)
      : run_(run), around_(around), adam_(adam), check_(check) {}

  BlockSteps of(const Part& part) {
    BlockSteps b;
    b.name = part.name;
    b.parameters = part.size();
    PartOperator op(run_.op(), part);
    at::Tensor vector;
    const EigenPairs pairs = run_.leading_pair(op, vector);
    b.converged = pairs.converged;
    if (!pairs.top.empty()) {
      b.lambda_1 = pairs.top[0].value;
      b.lambda_1_error = pairs.top[0].error;
      if (is_above_zero(b.lambda_1, b.lambda_1_error)) {
        b.step = 2 / b.lambda_1;
        if (check_) take_steps(around_, op, part, vector, b.lambda_1, 0, b.growth_below, b.growth_above);
      }
    }
    if (adam_.inverse_root.defined()) add_adam(op, part, b);
    b.products = op.products();
    return b;
  }

 private:
  /// A block that the loss does not depend on, or that bends down, has no largest step.
  static bool is_above_zero(double value, double error) { return value > 0 && !(value <= std::abs(error)); }

  void add_adam(PartOperator& op, const Part& part, BlockSteps& b) {
    ScaledOperator scaled(op, agreed(run_.world(), [&] { return shard_of_part(op, part, adam_.inverse_root); }));
    at::Tensor vector;
    const EigenPairs pairs = run_.leading_pair(scaled, vector);
    b.converged = b.converged && pairs.converged;
    if (pairs.top.empty()) return;
    b.adam_lambda_1 = pairs.top[0].value;
    b.adam_lambda_1_error = pairs.top[0].error;
    if (!is_above_zero(b.adam_lambda_1, b.adam_lambda_1_error)) return;
    b.adam_rate = adam_rate(adam_.beta1, b.adam_lambda_1);
    if (check_)
      take_steps(adam_.around, op, part, vector, b.adam_lambda_1, adam_.beta1, b.adam_growth_below,
                 b.adam_growth_above);
  }

  void take_steps(const LossAround& around, const PartOperator& op, const Part& part, const at::Tensor& vector,
                  double lambda_1, double momentum, double& below, double& above) {
    for (const StepCheck& check : check_steps(around, lambda_1, in_the_whole(op, part, vector), {momentum})) {
      below = check.below;
      above = check.above;
    }
  }

  /// This rank's shard of the whole vector that has the part's one in its entries, and zero elsewhere. Collective.
  at::Tensor in_the_whole(const PartOperator& op, const Part& part, const at::Tensor& vector) {
    at::Tensor gathered = agreed(run_.world(), [&] { return at::empty({op.shard().padded()}, op.options()); });
    op.comm().all_gather(vector, gathered);
    return agreed(run_.world(), [&] {
      at::Tensor whole = at::zeros({run_.op().shard().n}, op.options());
      std::int64_t at = 0;
      for (const IndexRange& range : part.ranges) {
        whole.narrow(0, range.begin, range.size()).copy_(gathered.narrow(0, at, range.size()));
        at += range.size();
      }
      return shard_of(run_.op(), whole);
    });
  }

  OneGroup& run_;
  const LossAround& around_;
  const AdamScale& adam_;
  const bool check_;
};

}  // namespace

StepsByBlock steps_by_block(OneGroup& run, const std::vector<Part>& parts, const LossAround& around,
                            const AdamScale& adam, bool check) {
  StepsByBlock all;
  ByBlock by_block(run, around, adam, check);
  std::vector<std::string> open, unlike;
  const auto is_confirmed = [](double below, double above) {
    return (std::isnan(below) || below < 1) && (std::isnan(above) || above > 1);
  };
  for (const Part& part : parts) {
    const BlockSteps& b = all.each.emplace_back(by_block.of(part));
    run.tell("sharpness: block " + quote(b.name));
    if (!b.converged) open.push_back(quote(b.name));
    if (!is_confirmed(b.growth_below, b.growth_above) || !is_confirmed(b.adam_growth_below, b.adam_growth_above))
      unlike.push_back(quote(b.name));
  }
  if (!open.empty())
    run.warn("eigenvalues of " + format_count(std::ssize(open)) + " of " + format_count(std::ssize(parts)) +
             " blocks did not converge: " + format_names(open, 3) + "; raise --max-steps or --rtol-eigs");
  if (!unlike.empty())
    run.warn("steps along the first eigenvectors of " + format_count(std::ssize(unlike)) + " of " +
             format_count(std::ssize(parts)) +
             " blocks do not shrink below the largest stable step and grow above it: " + format_names(unlike, 3) +
             "; the loss is not quadratic so near");
  return all;
}

}  // namespace hesspect
