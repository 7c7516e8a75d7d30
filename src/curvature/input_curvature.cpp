#include "hesspect/curvature/input_curvature.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "allocation_meter.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "hesspect/core/random_probe.h"
#include "hesspect/core/text.h"
#include "hesspect/core/timer.h"
#include "input_program.h"
#include "local_loss.h"
#include "loss_shapes.h"
#include "output_loss.h"
#include "row_lanczos.h"

namespace hesspect {
namespace {

constexpr std::int64_t kMostRowsAtOnce = 64;
/// Of a micro-batch's Lanczos vectors.
constexpr std::int64_t kBasis_bytes = std::int64_t{256} << 20;
/// Of the norm of a row's inputs, where no step is given.
constexpr double kRelativeStep = 0.1;

/// Thrown where a micro-batch is given up because the run stops.
struct GivenUp {};

/// The losses of a micro-batch's rows with their first derivatives.
struct RowLosses {
  std::vector<at::Tensor> variables, gradients;  // leaves, and undefined where the loss does not depend on them
  at::Tensor losses;                             // float64 [rows]; undefined where they are not known one by one
};

class BatchSharpness {
 public:
  BatchSharpness(const Program& program, const std::vector<InputVariable>& variables, const MicroBatch& batch,
                 const InputOptions& options)
      : program_(program), variables_(variables), batch_(batch), options_(options) {}

  /// @param stop  asked before each product
  /// @return the rows, and how many products they took
  /// @throws GivenUp
  std::pair<std::vector<InputRow>, std::int64_t> rows(const std::function<bool()>& stop) {
    const at::AutoGradMode grad(true);
    const RowLosses here = evaluate({}, /*again=*/true);
    const at::Tensor x = flat(here.variables), g = flat(here.gradients);
    require_finite(g, "the gradient");
    const RowEigenvalues eigen = row_lanczos(
        [&](const at::Tensor& v) {
          if (stop && stop()) throw GivenUp{};
          const at::Tensor product = times_hessian(here, v);
          require_finite(product, "a product with the Hessian");
          return product;
        },
        start(x), options_.rtol, options_.most_products);
    const at::Tensor h = steps(x), change = changes(g, h);
    std::vector<InputRow> rows;
    const at::Tensor norm = g.to(at::kDouble).norm(2, 1);
    const auto number = [](const at::Tensor& of, std::int64_t i) { return of[i].item<double>(); };
    for (std::int64_t i = 0; i < batch_.rows; ++i) {
      InputRow row;
      row.row = batch_.first_row + i;
      if (!terms_.defined() || terms_[i].item<double>() > 0) {
        if (here.losses.defined()) row.loss = number(here.losses, i);
        row.gradient_norm = number(norm, i);
        row.largest = number(eigen.largest, i);
        row.largest_error = number(eigen.largest_error, i);
        row.magnitude = number(eigen.magnitude, i);
        row.magnitude_error = number(eigen.magnitude_error, i);
        row.converged = eigen.converged[i].item<bool>();
        row.step = number(h, i);
        row.change = number(change, i);
      }
      rows.push_back(row);
    }
    return {std::move(rows), eigen.products};
  }

  /// Bytes and seconds of the graph and of one product.
  InputCost cost() {
    const at::AutoGradMode grad(true);
    InputCost cost;
    const AllocationMeter meter(program_.options().device);
    Timer timer;
    const RowLosses here = evaluate({}, /*again=*/true);
    const at::Tensor x = flat(here.variables), z = start(x);
    finish_device_work(x);
    cost.gradient_s = timer.elapsed_s();
    cost.graph_bytes = std::max<std::int64_t>(0, meter.held_bytes());
    timer.reset();
    finish_device_work(times_hessian(here, z));
    cost.product_s = timer.elapsed_s();
    cost.transient_bytes = std::max<std::int64_t>(0, meter.peak_bytes() - cost.graph_bytes);
    return cost;
  }

  std::int64_t dimensions() {
    const at::NoGradGuard no_grad;
    return flat(run_in_inputs(program_, variables_, batch_.inputs, {}).variables).size(1);
  }

 private:
  /// Tensors of the variables' shapes as [rows, D]; undefined ones are zero.
  at::Tensor flat(const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> parts;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const at::Tensor t = tensors[i].defined() ? tensors[i].detach() : at::zeros(shapes_.at(i), options_of());
      const InputVariable& variable = variables_[i];
      if (t.dim() <= variable.batch_dim || t.size(variable.batch_dim) != batch_.padded)
        throw InputError("--vary " + variable.name + " has shape " + format_shape(t.sizes().vec()) + " where " +
                         std::to_string(batch_.padded) + " rows were fed; expected as many in dimension " +
                         std::to_string(variable.batch_dim) + ": whose row a number is, is not known");
      parts.push_back(t.movedim(variable.batch_dim, 0).narrow(0, 0, batch_.rows).reshape({batch_.rows, -1}));
    }
    return at::cat(parts, 1);
  }
  at::TensorOptions options_of() const {
    return at::TensorOptions().dtype(program_.options().dtype).device(program_.options().device);
  }

  /// [rows, D] as tensors of the variables' shapes, zeros in padded rows.
  std::vector<at::Tensor> shaped(const at::Tensor& rows) const {
    std::vector<at::Tensor> tensors;
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < variables_.size(); ++i) {
      const std::int64_t dim = variables_[i].batch_dim;
      const at::Tensor whole = at::zeros(shapes_[i], options_of()), front = whole.movedim(dim, 0);
      const std::int64_t columns = whole.numel() / std::max<std::int64_t>(1, batch_.padded);
      std::vector<std::int64_t> sizes = front.sizes().vec();
      sizes[0] = batch_.rows;
      front.narrow(0, 0, batch_.rows).copy_(rows.narrow(1, begin, columns).reshape(sizes));
      begin += columns;
      tensors.push_back(whole);
    }
    return tensors;
  }

  void require_finite(const at::Tensor& rows, const std::string& what) const {
    const at::Tensor bad = at::isfinite(rows).all(1).logical_not();
    if (!bad.any().item<bool>()) return;
    throw InputError(what + " in the inputs is not finite in row " +
                     std::to_string(batch_.first_row + bad.to(at::kInt).argmax().item<std::int64_t>()) +
                     ": its inputs or the weights are too large, or the loss has no such derivative there");
  }

  // --- losses -------------------------------------------------------------------------------------------------------

  /// What each row's terms are divided by; zero where it has none.
  at::Tensor terms_of(const LossOptions& loss, const at::Tensor& weight) const {
    std::vector<double> terms;
    for (std::int64_t i = 0; i < batch_.rows; ++i)
      terms.push_back(loss_count(loss, batch_.target.narrow(0, i, 1), weight.narrow(0, i, 1)));
    return at::tensor(terms, at::kDouble);
  }

  /// Σ of the rows' losses, and `marks` [rows] or undefined: the derivative in which is each loss.
  at::Tensor sum_of(const std::vector<at::Tensor>& outputs, at::Tensor& marks, at::Tensor& losses) {
    const bool is_output = options_.loss.kind == LossKind::kOutput;
    const at::Tensor out = output_of(program_, outputs, options_.output_index, batch_, is_output);
    if (!is_output) {
      const LossOptions loss = fit_loss(options_.loss, out);
      const at::Tensor weight =
          batch_.weight.defined() ? batch_.weight : at::ones(term_shape(loss.kind, out), options_of());
      if (!terms_.defined()) terms_ = terms_of(loss, weight);
      at::Tensor share = at::where(terms_ > 0, 1.0, 0.0);
      if (options_.loss.reduction == Reduction::kMean) share = at::where(terms_ > 0, 1 / terms_, 0.0);
      marks = at::ones({batch_.rows}, options_of()).requires_grad_(true);
      std::vector<std::int64_t> sizes(static_cast<std::size_t>(weight.dim()), 1);
      sizes[0] = batch_.rows;
      return loss_sum(loss, out, batch_.target, weight * (share.to(marks.options()) * marks).view(sizes));
    }
    if (is_per_row_output(program_, options_.output_index)) {
      losses = out.detach().reshape({batch_.rows}).to(at::kDouble);
      return out.sum();
    }
    const bool is_mean = options_.loss.reduction == Reduction::kMean;
    if (batch_.rows == 1) losses = out.detach().reshape({1}).to(at::kDouble);
    if (batch_.rows == 1 || !is_mean) return out.sum();
    return out.sum() * output_count(program_, options_.loss, outputs, batch_);
  }

  /// @param again  the gradients will be differentiated
  RowLosses evaluate(const std::vector<at::Tensor>& shifts, bool again) {
    InputRun run = run_in_inputs(program_, variables_, batch_.inputs, shifts);
    if (shapes_.empty())
      for (const at::Tensor& variable : run.variables) shapes_.push_back(variable.sizes().vec());
    RowLosses found;
    at::Tensor marks;
    const at::Tensor sum = sum_of(run.outputs, marks, found.losses);
    if (!sum.requires_grad()) throw InputError("the loss does not depend on " + names());
    std::vector<at::Tensor> in = run.variables;
    if (marks.defined()) in.push_back(marks);
    found.gradients = torch::autograd::grad({sum}, in, {}, /*retain_graph=*/again, /*create_graph=*/again,
                                            /*allow_unused=*/true);
    if (marks.defined()) {
      found.losses = found.gradients.back().detach().to(at::kDouble);
      found.gradients.pop_back();
    }
    if (std::ranges::none_of(found.gradients, [](const at::Tensor& g) { return g.defined(); }))
      throw InputError("the loss does not depend on " + names());
    found.variables = std::move(run.variables);
    return found;
  }

  std::string names() const {
    std::vector<std::string> all;
    for (const InputVariable& variable : variables_) all.push_back(variable.name);
    return format_names(all);
  }

  at::Tensor times_hessian(const RowLosses& here, const at::Tensor& v) {
    const std::vector<at::Tensor> parts = shaped(v);
    std::vector<at::Tensor> of, weights;
    for (std::size_t i = 0; i < parts.size(); ++i)
      if (here.gradients[i].defined() && here.gradients[i].requires_grad()) {
        of.push_back(here.gradients[i]);
        weights.push_back(parts[i]);
      }
    if (of.empty()) return at::zeros_like(v);  // the loss is linear in the inputs
    return flat(torch::autograd::grad(of, here.variables, weights, /*retain_graph=*/true, false, true));
  }

  // --- steps --------------------------------------------------------------------------------------------------------

  /// A random direction for each row, which depends on nothing but its number.
  at::Tensor start(const at::Tensor& x) const {
    std::vector<double> entries(static_cast<std::size_t>(x.numel()));
    for (std::int64_t i = 0; i < batch_.rows; ++i)
      fill_probe(ProbeDistribution::kGaussian, options_.seed, static_cast<std::uint64_t>(batch_.first_row + i), 0,
                 x.size(1), entries.data() + i * x.size(1));
    return at::from_blob(entries.data(), x.sizes(), at::kDouble).to(x.options(), false, /*copy=*/true);
  }

  /// h, float64 [rows].
  at::Tensor steps(const at::Tensor& x) const {
    const at::Tensor norm = x.to(at::kDouble).norm(2, 1);
    if (options_.step > 0) return at::full_like(norm, options_.step);
    return kRelativeStep * at::where(norm > 0, norm, 1.0);
  }

  /// ‖∇ℓ(x + h z) − ∇ℓ(x)‖², float64 [rows].
  at::Tensor changes(const at::Tensor& g, const at::Tensor& h) {
    const at::Tensor exact = g.to(at::kDouble);
    const at::Tensor z = options_.direction == InputDirection::kSign ? exact.sgn() : exact;
    const at::Tensor norm = z.norm(2, 1, true);
    const at::Tensor shift = h.unsqueeze(1) * z / at::where(norm > 0, norm, 1.0);
    const at::Tensor moved = flat(evaluate(shaped(shift.to(g.options())), /*again=*/false).gradients);
    require_finite(moved, "the gradient after a step");
    return (moved.to(at::kDouble) - exact).square().sum(1);
  }

  const Program& program_;
  const std::vector<InputVariable>& variables_;
  const MicroBatch& batch_;
  const InputOptions& options_;
  std::vector<std::vector<std::int64_t>> shapes_;  // of the variables
  at::Tensor terms_;                               // float64 [rows], of the loss; undefined for loss `output`
};

/// LibTorch's own errors as ours.
template <class Work>
auto told(Work&& work) {
  try {
    return work();
  } catch (const c10::Error& e) {
    if (is_out_of_memory(e)) throw;
    throw InputError("the loss cannot be differentiated twice in the inputs: " + first_line(e));
  }
}

}  // namespace

struct InputAnalysis::Impl {
  Impl(Program& the_program, const DataShard& shard, const InputOptions& the_options, std::vector<RowRange> the_pending)
      : program(the_program),
        options(the_options),
        local(the_program, shard, the_options.loss, the_options.output_index),
        variables(input_variables(the_program, the_options.variables)),
        pending(std::move(the_pending)) {
    std::erase_if(pending, [](const RowRange& range) { return range.size() <= 0; });
    if (local.rows() == 0) return;
    size = local.given_micro_batch(options.micro_batch).value_or(0);
    const MicroBatch few = local.batch(first_rows(std::max<std::int64_t>(size, local.fewest_rows())));
    dimensions = sharpness(few).dimensions();
    if (size > 0) return;
    const std::int64_t row_bytes =
        dimensions * products() * static_cast<std::int64_t>(c10::elementSize(program.options().dtype));
    size = std::clamp(kBasis_bytes / std::max<std::int64_t>(1, row_bytes), local.fewest_rows(),
                      std::max(local.fewest_rows(), kMostRowsAtOnce));
    if (const auto most = local.most_rows()) size = std::min(size, *most);
    is_chosen = true;
  }

  BatchSharpness sharpness(const MicroBatch& batch) const { return BatchSharpness(program, variables, batch, options); }
  RowRange first_rows(std::int64_t rows) const { return {0, std::min(local.rows(), rows)}; }
  std::int64_t products() const { return std::max<std::int64_t>(1, std::min(dimensions, options.most_products)); }
  bool may_halve() const { return size > local.fewest_rows() && !program.static_batch(); }
  void halve() { size = std::max(local.fewest_rows(), size / 2); }

  /// The next micro-batch: of the first stretch that is left.
  RowRange next() const {
    // A last micro-batch of a single row shares rows with the one before, as LocalLoss::micro_batches has it.
    const std::int64_t fewest = std::max<std::int64_t>(2, local.fewest_rows());
    const RowRange& range = pending.front();
    const std::int64_t left = range.size(), rest = left - size;
    const bool shares = rest > 0 && rest < fewest && size > fewest && !program.static_batch();
    return {range.begin, range.begin + (shares ? (left + 1) / 2 : std::min(left, size))};
  }

  /// With rows before or after it, where they are fewer than the program takes.
  RowRange whole(RowRange range) const {
    const std::int64_t fewest = std::min(local.fewest_rows(), local.rows());
    range.begin = std::max<std::int64_t>(0, std::min(range.begin, range.end - fewest));
    range.end = std::max(range.end, std::min(local.rows(), range.begin + fewest));
    return range;
  }

  Program& program;
  const InputOptions options;
  LocalLoss local;
  const std::vector<InputVariable> variables;
  std::vector<RowRange> pending;
  std::int64_t size = 0;   // of a micro-batch
  bool is_chosen = false;  // here, not by the user or the program
  std::int64_t dimensions = 0, most_products = 0;
};

InputAnalysis::InputAnalysis(Program& program, const DataShard& shard, const InputOptions& options,
                             std::vector<RowRange> pending)
    : impl_(std::make_unique<Impl>(program, shard, options, std::move(pending))) {}
InputAnalysis::~InputAnalysis() = default;

std::vector<std::string> InputAnalysis::variables() const {
  std::vector<std::string> names;
  for (const InputVariable& variable : impl_->variables) names.push_back(variable.name);
  return names;
}

std::int64_t InputAnalysis::dimensions() const { return impl_->dimensions; }
std::int64_t InputAnalysis::micro_batch() const { return impl_->size; }
std::int64_t InputAnalysis::most_products() const { return impl_->most_products; }
bool InputAnalysis::done() const { return impl_->pending.empty(); }

InputCost InputAnalysis::measure(const std::function<bool(const InputCost&)>& fits) {
  Impl& i = *impl_;
  if (i.local.rows() == 0) return {};
  while (true) {
    try {
      const MicroBatch batch = i.local.batch(i.first_rows(i.size));
      i.local.check_values(batch);
      InputCost cost = told([&] {
        i.sharpness(batch).cost();  // libraries keep something of the first
        return i.sharpness(batch).cost();
      });
      cost.micro_batch = i.size;
      cost.dimensions = i.dimensions;
      cost.products = i.products();
      if (fits(cost) || !i.is_chosen || !i.may_halve()) return cost;
    } catch (const std::exception& e) {
      if (!is_out_of_memory(e) || !i.may_halve()) throw;
    }
    i.halve();
  }
}

bool InputAnalysis::advance(std::vector<InputRow>& rows, const std::function<bool()>& stop) {
  Impl& i = *impl_;
  while (true) {
    const RowRange range = i.next();
    try {
      const MicroBatch batch = i.local.batch(i.whole(range));
      i.local.check_values(batch);
      auto [found, products] = told([&] { return i.sharpness(batch).rows(stop); });
      const std::int64_t first = i.local.global_rows().begin;
      for (const InputRow& row : found)
        if (row.row - first >= range.begin && row.row - first < range.end) rows.push_back(row);
      i.most_products = std::max(i.most_products, products);
      i.pending.front().begin = range.end;
      if (i.pending.front().size() == 0) i.pending.erase(i.pending.begin());
      return true;
    } catch (const GivenUp&) {
      return false;
    } catch (const std::exception& e) {
      if (!is_out_of_memory(e) || !i.may_halve()) throw;
      i.halve();
    }
  }
}

}  // namespace hesspect
