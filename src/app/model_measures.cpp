#include "model_measures.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/probe_numbers.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/core/sha256.h"
#include "hesspect/core/text.h"
#include "hesspect/curvature/other_matrix.h"
#include "hesspect/curvature/part_operator.h"
#include "hesspect/curvature/row_quality.h"
#include "hesspect/spectrum/probe.h"
#include "hesspect/spectrum/row_figures.h"

namespace hesspect {
namespace {

double confidence_of(OneGroup& run) { return run.config().accuracy.confidence; }

/// x·Ax of each matrix for one vector.
double form_of(OneGroup& run, LinearOperator& matrix, const at::Tensor& x, at::Tensor& product) {
  matrix.apply(x, product);
  return run.dot(x, product);
}

}  // namespace

Information measure_information(OneGroup& run, const at::Tensor& theta) {
  Information found;
  found.confidence = confidence_of(run);
  HessianOperator& op = run.op();
  if (run.problem().options.loss.kind == LossKind::kOutput)
    found.obstacle = "the loss 'output' tells no distribution of the targets";
  else if (run.problem().options.product == ProductMode::kAutograd)
    found.obstacle = "--product autograd has no products with Fisher matrices";
  if (!found.obstacle.empty()) return found;
  OtherMatrix fisher(op, Curvature::kFisher), empirical(op, Curvature::kEmpiricalFisher);
  at::Tensor product = agreed(run.world(), [&] { return at::zeros_like(theta); });
  found.fisher_rao = form_of(run, fisher, theta, product);
  found.empirical_fisher_rao = form_of(run, empirical, theta, product);
  std::vector<double> h, f, c;
  for (std::int64_t i = 0; i < run.config().sharpness.measure_probes; ++i) {
    const at::Tensor z =
        probe_vector(op, ProbeDistribution::kRademacher, run.seed(), static_cast<std::uint64_t>(trace_probe(i)));
    h.push_back(form_of(run, op, z, product));
    f.push_back(form_of(run, fisher, z, product));
    c.push_back(form_of(run, empirical, z, product));
    run.tell("information matrices: " + format_count(i + 1) + " random vectors");
  }
  found.samples = std::ssize(h);
  found.products = 3 * found.samples + 2;
  found.trace = mean_over_samples(h, found.confidence);
  found.fisher_trace = mean_over_samples(f, found.confidence);
  found.empirical_trace = mean_over_samples(c, found.confidence);
  // The ratio of means over the same vectors: where the denominator may be zero it is none.
  const auto ratio = [&](const Interval& below, const std::vector<double>& values) {
    if (!(below.value > 0) || !(below.lower > 0)) return Interval{};
    return ratio_over_samples(c, values, found.confidence);
  };
  found.empirical_over_fisher = ratio(found.fisher_trace, f);
  found.empirical_over_hessian = ratio(found.trace, h);
  return found;
}

namespace {

bool is_matrix(const ParameterEntry& entry) {
  return entry.model_shape.size() == 2 && !entry.is_complex() && !entry.rows;
}

/// The last matrix with a row for each of a size of the output; nullptr where none has.
const ParameterEntry* last_layer(const Problem& problem) {
  const auto& outputs = problem.program->outputs();
  const auto index = static_cast<std::size_t>(problem.options.output_index);
  if (index >= outputs.size() || problem.options.loss.kind == LossKind::kOutput) return nullptr;
  const OutputSpec& output = outputs[index];
  const ParameterEntry* found = nullptr;
  for (const ParameterEntry& entry : problem.program->layout().entries()) {
    if (!is_matrix(entry)) continue;
    for (std::size_t d = 0; d < output.shape.size(); ++d)
      if (static_cast<std::int64_t>(d) != output.batch_dim && output.shape[d].is_static() &&
          output.shape[d].size == entry.shape[0])
        found = &entry;
  }
  return found;
}

/// Where the layer is, or why there is none.
const ParameterEntry* layer_of(OneGroup& run, std::string& obstacle) {
  const ParameterLayout& layout = run.problem().program->layout();
  const std::string& name = run.config().sharpness.flatness_layer;
  if (name.empty()) {
    const ParameterEntry* last = last_layer(run.problem());
    if (last == nullptr)
      obstacle =
          "no parameter tensor of two dimensions has a row for each class of the output: --flatness-layer names one";
    return last;
  }
  const ParameterEntry* entry = layout.find(name);
  std::vector<std::string> names;
  for (const ParameterEntry& one : layout.entries())
    if (is_matrix(one)) names.push_back(one.name);
  if (entry == nullptr || !is_matrix(*entry))
    throw InputError("--flatness-layer " + quote(name) +
                     (entry == nullptr ? " is no parameter" : " is no real matrix whose rows are all in use") +
                     did_you_mean(name, names) + "; there are " + (names.empty() ? "none" : format_names(names)));
  return entry;
}

}  // namespace

/// With V = W R, R a matrix of random signs, E⟨V, HV⟩ = Σ_{s,s'} ⟨w_s, w_s'⟩ Tr(H_{s,s'}): W's columns times the unit
/// vectors of the inputs are summed over, one by one in the mean.
RelativeFlatness measure_flatness(OneGroup& run) {
  RelativeFlatness found;
  found.confidence = confidence_of(run);
  const ParameterEntry* entry = nullptr;
  agree(run.world(), [&] { entry = layer_of(run, found.obstacle); });
  if (entry == nullptr) return found;
  found.layer = entry->name;
  found.rows = entry->shape[0];
  found.columns = entry->shape[1];
  const Part part{entry->name, {{entry->offset, entry->offset + entry->numel}}, {entry->name}};
  PartOperator layer(run.op(), part);
  const Shard& shard = layer.shard();
  at::Tensor product = agreed(run.world(), [&] { return at::zeros({shard.chunk}, layer.options()); });
  std::vector<double> values;
  for (std::int64_t i = 0; i < run.config().sharpness.measure_probes; ++i) {
    const at::Tensor v = agreed(run.world(), [&] {
      at::NoGradGuard no_grad;
      const at::Tensor weights =
          run.problem().program->flat_parameters().narrow(0, entry->offset, entry->numel).view(entry->shape);
      at::Tensor signs = at::empty({found.columns, found.columns}, at::kDouble);
      fill_probe(ProbeDistribution::kRademacher, run.seed(), kFlatnessProbes + static_cast<std::uint64_t>(i), 0,
                 signs.numel(), signs.data_ptr<double>());
      const at::Tensor whole = at::matmul(weights, signs.to(layer.options())).flatten();
      at::Tensor local = at::zeros({shard.chunk}, layer.options());
      local.narrow(0, 0, shard.size()).copy_(whole.narrow(0, shard.begin(), shard.size()));
      return local;
    });
    values.push_back(form_of(run, layer, v, product));
    run.tell("relative flatness: " + format_count(i + 1) + " random matrices");
  }
  found.samples = std::ssize(values);
  found.value = mean_over_samples(values, found.confidence);
  return found;
}

namespace {

std::string packed_rows(const RowSums& rows) {
  std::string bytes;
  const auto put = [&](const auto& list) {
    const auto size = static_cast<std::int64_t>(list.size());
    bytes.append(reinterpret_cast<const char*>(&size), sizeof size);
    bytes.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof list[0]);
  };
  for (const auto* list : {&rows.loss, &rows.loss_count, &rows.terms, &rows.correct, &rows.nll, &rows.brier,
                           &rows.bin_terms, &rows.bin_correct, &rows.bin_confidence})
    put(*list);
  put(rows.bin_row);
  put(rows.bin);
  return bytes;
}

RowSums rows_from(const std::string& bytes) {
  RowSums rows;
  std::size_t at = 0;
  const auto take = [&](auto& list) {
    std::int64_t size = 0;
    std::memcpy(&size, bytes.data() + at, sizeof size);
    at += sizeof size;
    list.resize(static_cast<std::size_t>(size));
    if (size > 0) std::memcpy(list.data(), bytes.data() + at, list.size() * sizeof list[0]);
    at += list.size() * sizeof list[0];
  };
  for (auto* list : {&rows.loss, &rows.loss_count, &rows.terms, &rows.correct, &rows.nll, &rows.brier, &rows.bin_terms,
                     &rows.bin_correct, &rows.bin_confidence})
    take(*list);
  take(rows.bin_row);
  take(rows.bin);
  return rows;
}

/// All ranks' rows, in their order. Collective.
RowSums gathered_rows(const RowSums& mine, Communicator& world) {
  const bool unclassified = world.any(!mine.loss.empty() && mine.terms.empty());
  RowSums all;
  for (const std::string& theirs : world.all_gather_bytes(packed_rows(mine))) all.append(rows_from(theirs));
  if (!unclassified) return all;
  RowSums loss_alone;
  loss_alone.loss = std::move(all.loss);
  loss_alone.loss_count = std::move(all.loss_count);
  return loss_alone;
}

}  // namespace

DataComparison compare_data(OneGroup& run) {
  Problem& problem = run.problem();
  Communicator& world = run.world();
  DataComparison found;
  const double confidence = found.confidence = confidence_of(run);
  const RowSums own = gathered_rows(agreed(world, [&] { return row_quality(run.op(), problem.options); }), world);
  DataShard shard =
      agreed(world, [&] { return load_shard(*problem.other_file, problem.other_spec, world.size(), world.rank()); });
  const RowSums other = gathered_rows(
      agreed(world,
             [&] {
               try {
                 return row_quality(run.op(), problem.options, std::move(shard));
               } catch (const InputError& error) {
                 throw InputError("--other-data " + run.config().sharpness.other_data + ": " + error.what());
               }
             }),
      world);
  agree(world, [&] {
    if (world.rank() != 0) return;
    found.own = quality_of(own, confidence, run.seed());
    found.other = quality_of(other, confidence, run.seed() + 1);
    found.gap = difference_over_rows(own.loss, own.loss_count, other.loss, other.loss_count, confidence);
    found.resamples = resamples_for(own.bin.size());
    found.own.rows = problem.rows;
    found.other.rows = problem.other_rows;
    found.own.file = run.config().data.data;
    found.other.file = run.config().sharpness.other_data;
    found.other.sha256 = sha256_file(found.other.file);
    found.own.sha256 = sha256_file(found.own.file);
    found.obstacle = no_classes(problem.options.loss);
    if (found.obstacle.empty() && !(found.own.terms > 0 && found.other.terms > 0))
      found.obstacle = "targets are neither classes nor 0 and 1";
    if (problem.options.loss.kind == LossKind::kOutput)  // micro-batches' losses, not rows'
      for (Interval* i : {&found.own.loss, &found.other.loss, &found.gap}) i->lower = i->upper = Interval::kUnknown;
    if (problem.options.loss.reduction == Reduction::kSum && problem.options.loss.kind != LossKind::kOutput)
      run.warn(
          "losses on both data files are means over their terms, for sums over other numbers of rows can't be "
          "compared");
  });
  return found;
}

}  // namespace hesspect
