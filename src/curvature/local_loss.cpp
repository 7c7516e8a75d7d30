#include "local_loss.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "output_loss.h"
#include "row_loss.h"

namespace hesspect {
namespace {

/// sums[i] += tensors[i]; undefined ones are zero.
void add_to(const std::vector<at::Tensor>& sums, const std::vector<at::Tensor>& tensors) {
  at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (tensors[i].defined()) sums[i].add_(tensors[i]);
}

}  // namespace

bool is_out_of_memory(const std::exception& error) {
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         dynamic_cast<const MemoryError*>(&error) != nullptr || is_allocation_failure(error);
}

void finish_device_work(const at::Tensor& result) {
  if (result.is_cpu() || result.numel() == 0) return;
  at::Tensor entry = result;
  while (entry.dim() > 0) entry = entry.select(0, 0);
  entry.item<double>();
}

LocalLoss::LocalLoss(Program& program, DataShard data, const LossOptions& loss, int output_index, RowUnits units)
    : program_(program), data_(std::move(data)), options_(loss), output_index_(output_index), units_(units) {
  const std::size_t outputs = program.outputs().size();
  if (output_index < 0 || output_index >= static_cast<int>(outputs))
    throw UsageError("--output-index " + std::to_string(output_index) + ": the model has " + std::to_string(outputs) +
                     " output" + (outputs == 1 ? "" : "s") + ", numbered from 0");
}

at::TensorOptions LocalLoss::tensor_options() const {
  return at::TensorOptions().dtype(program_.options().dtype).device(program_.options().device);
}

// --- micro-batches --------------------------------------------------------------------------------------------------

std::int64_t LocalLoss::fewest_rows() const {
  if (!units_.together) return units_.rows;
  return (program_.fewest_rows() + units_.rows - 1) / units_.rows * units_.rows;
}

std::optional<std::int64_t> LocalLoss::most_rows() const {
  if (!units_.together) return units_.rows;
  const auto most = program_.most_rows();
  return most ? std::optional(std::max(units_.rows, whole_units(*most))) : std::nullopt;
}

bool LocalLoss::squares_scalar() const {
  return choice_.curvature == Curvature::kEmpiricalFisher && is_output() && !is_per_row_output(program_, output_index_);
}

std::optional<std::int64_t> LocalLoss::given_micro_batch(std::int64_t asked) const {
  const auto fixed = program_.static_batch();
  const std::string unit = std::to_string(units_.rows);
  if (squares_scalar()) {
    if (asked > 1 || fixed.value_or(1) > 1 || units_.rows > 1 || fewest_rows() > 1)
      throw UsageError("--curvature empirical_fisher takes each row's gradient, and the model's scalar output is of " +
                       (asked > 1 ? "the rows of a micro-batch (--micro-batch " + std::to_string(asked) + ")"
                                  : std::string("several rows")) +
                       "; give one loss a row as the output, or a model that takes a single row, with --micro-batch 1");
    return 1;
  }
  if (fixed && asked > 0 && asked != *fixed)
    throw UsageError("--micro-batch " + std::to_string(asked) + ": the model was exported with a fixed batch of " +
                     std::to_string(*fixed));
  if (fixed && *fixed != units_.rows && (!units_.together || *fixed % units_.rows != 0))
    throw UsageError("units of " + unit + " rows: the model was exported with a fixed batch of " +
                     std::to_string(*fixed) + "; export it with that of a unit, or with a dynamic one");
  if (!units_.together && asked > 0 && asked != units_.rows)
    throw UsageError("--micro-batch " + std::to_string(asked) + ": units of " + unit +
                     " rows go through the model one at a time, for they change each other's outputs");
  if (asked > 0 && asked % units_.rows != 0)
    throw UsageError("--micro-batch " + std::to_string(asked) + " is no whole number of units of " + unit +
                     " rows (--unit-rows)");
  if (fixed) return fixed;
  if (!units_.together) return units_.rows;
  return asked > 0 ? std::optional(asked) : std::nullopt;
}

std::vector<RowRange> LocalLoss::micro_batches(std::int64_t size) const {
  std::vector<RowRange> ranges = hesspect::micro_batches({0, rows()}, size);
  const std::size_t m = ranges.size();
  if (m > 1 && !program_.static_batch() && ranges[m - 1].size() < std::max<std::int64_t>(2, fewest_rows()) &&
      ranges[m - 2].size() > 2) {
    const std::int64_t both = (ranges[m - 1].end - ranges[m - 2].begin) / units_.rows;
    ranges[m - 2].end = ranges[m - 1].begin = ranges[m - 2].begin + (both + 1) / 2 * units_.rows;
  }
  return ranges;
}

std::int64_t LocalLoss::padded_rows(RowRange range) const {
  const auto fixed = program_.static_batch();
  if (!fixed || range.size() == *fixed) return range.size();
  if (is_output() && !is_per_row_output(program_, output_index_))
    throw InputError(
        "the model was exported with a fixed batch of " + std::to_string(*fixed) + ", and " +
        std::to_string(range.size()) +
        " rows are left over on a rank; loss 'output' cannot mask them, so give "
        "each rank a multiple of it (--samples), export with a dynamic batch, or give the loss of each row");
  return *fixed;
}

MicroBatch LocalLoss::unchecked_batch(RowRange range) const {
  MicroBatch batch;
  batch.rows = range.size();
  batch.first_row = data_.rows.begin + range.begin;
  const std::int64_t padded = batch.padded = padded_rows(range);
  const auto cut = [&](const at::Tensor& tensor) {
    at::Tensor rows = tensor.narrow(0, range.begin, range.size());
    if (padded <= range.size()) return rows;
    std::vector<std::int64_t> repeats(static_cast<std::size_t>(tensor.dim()), -1);
    repeats[0] = padded - range.size();
    return at::cat({rows, rows.narrow(0, 0, 1).expand(repeats)});
  };
  std::vector<at::Tensor> inputs;
  for (const at::Tensor& input : data_.inputs) inputs.push_back(cut(input));
  batch.inputs = program_.prepare_inputs(inputs);
  if (needs_target(options_.kind) && data_.target.defined())
    batch.target = data_.target.narrow(0, range.begin, range.size());
  if (data_.weight.defined()) batch.weight = data_.weight.narrow(0, range.begin, range.size());
  return batch;
}

void LocalLoss::fit(MicroBatch& batch, const at::Tensor& output) {
  options_ = fit_loss(options_, output);
  batch.target = check_target(options_, output, batch.target, batch.first_row);
  batch.weight = check_weight(options_, output, batch.weight, batch.first_row);
}

/// A tensor like the batch's output, but without memory. Where the export says of all dimensions but the rows how long
/// they are, the output of a few rows tells it: that of all may be the largest array there is.
at::Tensor LocalLoss::shape_of_output(const MicroBatch& batch) const {
  const at::NoGradGuard no_grad;
  const OutputSpec& spec = program_.outputs()[static_cast<std::size_t>(output_index_)];
  std::int64_t dynamic = 0;
  for (const Dimension& dimension : spec.shape) dynamic += dimension.is_static() ? 0 : 1;
  const std::int64_t few = std::max<std::int64_t>(2, fewest_rows());
  const bool one_dynamic =
      dynamic == 1 && !spec.shape[static_cast<std::size_t>(spec.batch_dim)].is_static() && !program_.static_batch();
  const at::Tensor like =
      output(one_dynamic && few < batch.rows
                 ? unchecked_batch({batch.first_row - data_.rows.begin, batch.first_row - data_.rows.begin + few})
                 : batch);
  std::vector<std::int64_t> sizes = like.sizes().vec();
  if (!sizes.empty()) sizes[0] = batch.rows;
  return at::empty({}, like.options().device(program_.options().device)).expand(sizes);
}

MicroBatch LocalLoss::batch(RowRange range) {
  MicroBatch batch = unchecked_batch(range);
  if (is_output()) return batch;
  if (batch.rows != output_like_rows_) {  // micro-batches of one size share it
    output_like_ = shape_of_output(batch);
    output_like_rows_ = batch.rows;
  }
  fit(batch, output_like_);
  batch.output_like = output_like_;
  return batch;
}

// --- the loss and its derivatives -----------------------------------------------------------------------------------

at::Tensor LocalLoss::output(const MicroBatch& batch) const {
  return output_of(program_, program_.run(batch.inputs), output_index_, batch, is_output());
}

at::Tensor LocalLoss::rows_of_output(const at::Tensor& output, const MicroBatch& batch) const {
  std::vector<at::Tensor> outputs(static_cast<std::size_t>(output_index_) + 1);
  outputs.back() = output;
  return output_of(program_, outputs, output_index_, batch, is_output());
}

at::Tensor LocalLoss::sum(const MicroBatch& batch) const {
  if (is_output()) return output_loss(program_, options_, output_index_, batch).sum;
  return loss_sum(options_, output(batch), batch.target, batch.weight);
}

LossSum LocalLoss::loss(const MicroBatch& batch) const {
  if (is_output()) return output_loss(program_, options_, output_index_, batch);
  const at::Tensor out = output(batch);
  check_output(options_, out.detach(), batch.first_row);
  return {loss_sum(options_, out, batch.target, batch.weight), loss_count(options_, batch.target, batch.weight)};
}

void LocalLoss::check_values(const MicroBatch& batch) const {
  if (options_.kind != LossKind::kBce && options_.kind != LossKind::kNll) return;  // the others take any output
  at::NoGradGuard no_grad;
  check_output(options_, output(batch), batch.first_row);
}

double LocalLoss::count(const MicroBatch& batch) const {
  if (!is_output()) return loss_count(options_, batch.target, batch.weight);
  at::NoGradGuard no_grad;
  return output_count(program_, options_, program_.run(batch.inputs), batch);
}

std::pair<double, double> LocalLoss::add_gradient(const MicroBatch& batch, const std::vector<at::Tensor>& sums) const {
  const LossSum value = loss(batch);
  add_to(sums, torch::autograd::grad({value.sum}, program_.parameters(), {}, false, false, /*allow_unused=*/true));
  return {value.sum.item<double>(), value.count};
}

void LocalLoss::choose(const ProductChoice& choice) {
  const bool is_flat = is_output() || options_.kind == LossKind::kNll || options_.kind == LossKind::kL1;
  const std::string matrix = "--curvature " + to_string(choice.curvature);
  const std::string with_loss = matrix + " with --loss " + std::string(to_string(options_.kind));
  if (choice.curvature == Curvature::kGgn && is_flat)
    throw UsageError(
        with_loss +
        ": the loss is linear in the output, so that the matrix is zero; give a loss that is curved, such as "
        "cross_entropy on logits" +
        (is_output() ? ", with the program's logits as the output" : ", or --curvature fisher"));
  if (choice.curvature == Curvature::kFisher && is_output())
    throw UsageError(with_loss +
                     ": the loss tells no distribution of the targets; give the program's logits or predictions as "
                     "the output and their loss by its name, or --curvature empirical_fisher");
  if (choice.gauss_newton() && !choice.tangent)
    throw UsageError(matrix + " with --product autograd: only the tangent program has its products");
  if (choice.precision == MatrixPrecision::kBf16 && !choice.tangent && !program_.options().device.is_cpu())
    throw UsageError(
        "--precision bf16 with --product autograd: on a GPU only the tangent program rounds to bfloat16; give another "
        "--product, or --precision tf32");
  choice_ = choice;
}

const Cuts& LocalLoss::cuts(const MicroBatch& batch) {
  if (!cuts_) cuts_ = find_cuts(tangent_program(), batch.inputs);
  return *cuts_;
}

const TangentProgram& LocalLoss::tangent_program() {
  if (tangent_ == nullptr)
    tangent_ =
        std::make_unique<TangentProgram>(program_, std::vector<std::size_t>{static_cast<std::size_t>(output_index_)});
  return *tangent_;
}

LaunchRecorder* LocalLoss::recorder() {
  if (recorder_ == nullptr) recorder_ = launch_recorder(program_.options().device);
  return recorder_.get();
}

Sweeps LocalLoss::sweeps(const MicroBatch& batch) {
  const OutputSpec& spec = program_.outputs()[static_cast<std::size_t>(output_index_)];
  const bool is_scalar = is_output() && !is_per_row_output(program_, output_index_);
  OutputRows rows;
  if (!is_scalar && (spec.batch_dim != 0 || batch.padded != batch.rows)) rows = {spec.batch_dim, batch.rows};
  std::shared_ptr<const RowObjective> objective;
  if (is_output()) {
    at::NoGradGuard no_grad;
    const std::vector<at::Tensor> outputs = program_.run(batch.inputs);
    objective = output_rows(
        program_, options_, output_index_, output_of(program_, outputs, output_index_, batch, /*may_be_scalar=*/true),
        output_count(program_, options_, outputs, batch), choice_.curvature == Curvature::kEmpiricalFisher);
  } else {
    objective =
        row_loss(options_, batch.output_like, batch.target, batch.weight, {choice_.curvature, choice_.fisher_unit});
  }
  return Sweeps(tangent_program(), batch.inputs, std::move(objective), rows);
}

GradientGraph LocalLoss::gradient_graph(const MicroBatch& batch) const {
  const at::Tensor value = sum(batch);
  const std::vector<at::Tensor> gradients = torch::autograd::grad(
      {value}, program_.parameters(), {}, /*retain_graph=*/true, /*create_graph=*/true, /*allow_unused=*/true);
  GradientGraph graph;
  for (std::size_t i = 0; i < gradients.size(); ++i)
    if (gradients[i].defined() && gradients[i].requires_grad()) {
      graph.gradients.push_back(gradients[i]);
      graph.parameters.push_back(i);
    }
  return graph;
}

/// @return for each parameter, undefined where zero or not chosen
std::vector<at::Tensor> LocalLoss::product(const GradientGraph& graph, const std::vector<at::Tensor>& v, bool keep,
                                           const std::vector<bool>* chosen) const {
  const auto is_chosen = [&](std::size_t parameter) { return chosen == nullptr || (*chosen)[parameter]; };
  std::vector<at::Tensor> of, weights, in, result(v.size());
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < graph.gradients.size(); ++i) {
    if (!is_chosen(graph.parameters[i])) continue;
    of.push_back(graph.gradients[i]);
    weights.push_back(v[graph.parameters[i]]);
  }
  if (of.empty()) return result;  // the loss is linear in these parameters
  for (std::size_t p = 0; p < v.size(); ++p) {
    if (!is_chosen(p)) continue;
    in.push_back(program_.parameters()[p]);
    places.push_back(p);
  }
  const std::vector<at::Tensor> products =
      torch::autograd::grad(of, in, weights, keep, /*create_graph=*/false, /*allow_unused=*/true);
  for (std::size_t i = 0; i < places.size(); ++i) result[places[i]] = products[i];
  return result;
}

void LocalLoss::add_product(const GradientGraph& graph, const std::vector<at::Tensor>& v, bool keep,
                            const std::vector<at::Tensor>& sums, const std::vector<bool>* chosen) const {
  add_to(sums, product(graph, v, keep, chosen));
}

MicroBatch LocalLoss::trial_batch() const {
  const std::int64_t few = program_.static_batch().value_or(std::max<std::int64_t>(2, fewest_rows()));
  return unchecked_batch({0, std::min(few, rows())});
}

std::int64_t LocalLoss::check(bool derivatives) {
  if (rows() == 0) return 0;
  MicroBatch trial = trial_batch();
  const at::Tensor trial_output = output(trial);
  if (is_output()) {
    check_output_loss(program_, options_, output_index_, trial);
  } else {
    fit(trial, trial_output);
    check_output(options_, trial_output.detach(), trial.first_row);
  }
  if (!trial_output.requires_grad())
    throw InputError("output " + std::to_string(output_index_) + " of the model does not depend on its parameters" +
                     program_.lost_gradients(output_index_).reason);
  if (derivatives) check_derivatives(trial);
  return static_cast<std::int64_t>(trial_output.nbytes());
}

void LocalLoss::check_turned_down() {
  if (rows() == 0 || !choice_.tangent || !tangent_program().uses_fallback()) return;
  MicroBatch trial = trial_batch();
  if (!is_output()) {
    at::NoGradGuard no_grad;
    fit(trial, output(trial));
  }
  check_derivatives(trial);
}

/// Rules of our own need no derivative of PyTorch's.
void LocalLoss::check_derivatives(const MicroBatch& trial) {
  const bool all = !choice_.tangent;
  const bool any = program_.check_twice_differentiable(trial.inputs, [&](const Instruction& instruction) {
    return (all || tangent_program().leaves_to_autograd(instruction)) && checked_.insert(&instruction).second;
  });
  if (!any && !all) return;
  // A whole product shows what no node alone does, such as a tensor saved for the backward and then written to.
  try {
    std::vector<at::Tensor> v;
    for (const at::Tensor& parameter : program_.parameters()) v.push_back(parameter.detach());
    product(gradient_graph(trial), v, /*keep=*/false);
  } catch (const c10::Error& e) {
    if (is_out_of_memory(e)) throw;
    throw InputError("the model cannot be differentiated twice: " + first_line(e));
  }
}

}  // namespace hesspect
