#include "hesspect/curvature/row_quality.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <map>
#include <numeric>

#include "hesspect/core/errors.h"
#include "local_loss.h"
#include "loss_rows.h"
#include "loss_shapes.h"
#include "operator_parts.h"

namespace hesspect {
namespace {

/// Terms of a micro-batch as tensors [rows, terms], double: whether each counts, is right, its confidence, and its
/// share of NLL and Brier score.
struct Predictions {
  at::Tensor counts, correct, confidence, nll, brier;
};

/// Classes last: [rows, terms, C].
Predictions predicted_classes(const LossOptions& options, const at::Tensor& output, const at::Tensor& target) {
  const std::int64_t rows = output.size(0);
  const at::Tensor classes = moved_targets(options, target).reshape({rows, -1});
  at::Tensor logits = output.to(at::kDouble);
  if (has_classes_last(options.kind))
    logits = logits.narrow(1, 0, classes.size(1));
  else
    logits = logits.movedim(1, -1).reshape({rows, -1, output.size(1)});
  const at::Tensor log_p = options.kind == LossKind::kNll ? logits : at::log_softmax(logits, -1);
  const at::Tensor p = log_p.exp();
  Predictions all;
  all.counts = (classes != options.ignore_index).to(at::kDouble);
  const at::Tensor known = classes.masked_fill(classes == options.ignore_index, 0).to(at::kLong);
  const auto [largest, which] = p.max(-1);
  all.correct = (which == known).to(at::kDouble);
  all.confidence = largest;
  all.nll = -log_p.gather(-1, known.unsqueeze(-1)).squeeze(-1);
  const at::Tensor of_target = p.gather(-1, known.unsqueeze(-1)).squeeze(-1);
  all.brier = p.square().sum(-1) - 2 * of_target + 1;
  return all;
}

/// Targets of 0 and 1, each entry a term. @throws InputError for others
Predictions predicted_binary(const LossOptions& options, const at::Tensor& output, const at::Tensor& target) {
  const std::int64_t rows = output.size(0);
  const at::Tensor z = output.to(at::kDouble).reshape({rows, -1}), y = target.to(at::kDouble).reshape({rows, -1});
  Predictions all;
  const bool logits = options.kind == LossKind::kBceWithLogits;
  const at::Tensor p = logits ? z.sigmoid() : z;
  const at::Tensor log_p = logits ? at::log_sigmoid(z) : z.log().clamp_min(-100);
  const at::Tensor log_not_p = logits ? at::log_sigmoid(-z) : z.neg().log1p().clamp_min(-100);
  all.counts = at::ones_like(p);
  all.correct = ((p >= 0.5) == (y >= 0.5)).to(at::kDouble);
  all.confidence = at::maximum(p, 1 - p);
  all.nll = -at::where(y >= 0.5, log_p, log_not_p);
  all.brier = (p - y).square();
  return all;
}

void append(std::vector<double>& list, const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kDouble).cpu().contiguous();
  const double* const data = values.const_data_ptr<double>();
  list.insert(list.end(), data, data + values.numel());
}

class Collector {
 public:
  explicit Collector(LocalLoss& local) : local_(local) {}

  void add(const MicroBatch& batch) {
    at::NoGradGuard no_grad;
    const LossOptions& options = local_.loss_options();
    if (options.kind == LossKind::kOutput) {
      const LossSum sum = local_.loss(batch);  // of all its rows together
      rows_.loss.push_back(sum.sum.to(at::kDouble).item<double>());
      rows_.loss_count.push_back(sum.count);
      return;
    }
    const at::Tensor output = local_.output(batch);
    const std::size_t first = rows_.loss.size();
    append(rows_.loss, loss_by_row(options, output, batch.target, batch.weight));
    append(rows_.loss_count, count_by_row(options, batch.target, batch.weight));
    for (std::size_t i = first; i < rows_.loss.size(); ++i)
      if (!std::isfinite(rows_.loss[i]))
        throw InputError("the loss of row " + std::to_string(batch.first_row + static_cast<std::int64_t>(i - first)) +
                         " is not finite");
    if (!classified_) return;
    const bool binary = options.kind == LossKind::kBce || options.kind == LossKind::kBceWithLogits;
    classified_ = binary ? ((batch.target == 0) | (batch.target == 1)).all().item<bool>()
                         : !at::isFloatingType(batch.target.scalar_type());
    if (classified_)
      add_predictions(binary ? predicted_binary(options, output, batch.target)
                             : predicted_classes(options, output, batch.target));
  }

  /// Where some targets turned out to be neither classes nor 0 and 1, nothing is classified.
  RowSums rows() && {
    if (classified_) return std::move(rows_);
    RowSums loss_alone;
    loss_alone.loss = std::move(rows_.loss);
    loss_alone.loss_count = std::move(rows_.loss_count);
    return loss_alone;
  }
  void classify_nothing() { classified_ = false; }

 private:
  void add_predictions(const Predictions& p) {
    const auto counted = [&](const at::Tensor& values) { return at::where(p.counts > 0, values, 0); };
    const auto first_row = static_cast<std::int64_t>(rows_.terms.size());
    append(rows_.terms, p.counts.sum(1));
    append(rows_.correct, counted(p.correct).sum(1));
    append(rows_.nll, counted(p.nll).sum(1));
    append(rows_.brier, counted(p.brier).sum(1));
    std::vector<double> counts, correct, confidence;
    append(counts, p.counts);
    append(correct, p.correct);
    append(confidence, p.confidence);
    const std::int64_t rows = p.counts.size(0), terms = p.counts.size(1);
    for (std::int64_t r = 0; r < rows; ++r) {
      struct Sums {
        double terms = 0, correct = 0, confidence = 0;
      };
      std::map<std::int64_t, Sums> bins;
      for (std::int64_t t = 0; t < terms; ++t) {
        const auto i = static_cast<std::size_t>(r * terms + t);
        if (counts[i] == 0) continue;
        Sums& bin = bins[confidence_bin(confidence[i])];
        bin.terms += 1;
        bin.correct += correct[i];
        bin.confidence += confidence[i];
      }
      for (const auto& [bin, sums] : bins) {
        rows_.bin_row.push_back(first_row + r);
        rows_.bin.push_back(bin);
        rows_.bin_terms.push_back(sums.terms);
        rows_.bin_correct.push_back(sums.correct);
        rows_.bin_confidence.push_back(sums.confidence);
      }
    }
  }

  LocalLoss& local_;
  RowSums rows_;
  bool classified_ = true;
};

}  // namespace

std::string no_classes(const LossOptions& loss) {
  switch (loss.kind) {
    case LossKind::kCrossEntropy:
    case LossKind::kCausalLm:
    case LossKind::kMaskedLm:
    case LossKind::kNll:
    case LossKind::kBce:
    case LossKind::kBceWithLogits: return "";
    default: return "the loss " + std::string(to_string(loss.kind)) + " has no classes";
  }
}

RowSums row_quality(HessianOperator& op, const HessianOptions& options) {
  const OperatorParts parts = op.parts();
  Collector collector(parts.local);
  if (!no_classes(options.loss).empty()) collector.classify_nothing();
  for (const MicroBatch& batch : parts.batches) collector.add(batch);
  return std::move(collector).rows();
}

RowSums row_quality(HessianOperator& op, const HessianOptions& options, DataShard shard) {
  LocalLoss local(op.parts().local.program(), std::move(shard), options.loss, options.output_index, options.units);
  Collector collector(local);
  if (!no_classes(options.loss).empty()) collector.classify_nothing();
  for (const RowRange& range : local.micro_batches(op.stats().micro_batch)) {
    const MicroBatch batch = local.batch(range);
    local.check_values(batch);
    collector.add(batch);
  }
  return std::move(collector).rows();
}

}  // namespace hesspect
