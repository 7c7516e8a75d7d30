#include "hesspect/curvature/hessian.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "hesspect/comm/agree.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/foreign_error.h"
#include "hesspect/core/memory.h"
#include "hesspect/core/timer.h"

namespace hesspect {
namespace {

/// Rows of a micro-batch that is chosen here, at most.
constexpr std::int64_t kMostRows = 1024;

/// Rows of one micro-batch, ready for the program.
struct Batch {
  std::vector<at::Tensor> inputs;
  at::Tensor target;           // checked and converted; undefined for loss 'output'
  std::int64_t rows = 0;       // of data; the inputs may be padded beyond it
  std::int64_t first_row = 0;  // global, for messages
};

/// ∇ℓ_sum of one micro-batch, its graph alive: what a product pulls back once more.
struct GradientGraph {
  std::vector<at::Tensor> gradients;    // those that depend on the parameters
  std::vector<std::size_t> parameters;  // and which parameter each belongs to
};

}  // namespace

struct HessianOperator::Impl {
  Program& program;
  Communicator& comm;
  HessianOptions options;
  Shard shard;
  DataShard data;
  std::vector<Batch> batches;
  std::vector<GradientGraph> kept;  // of batches[0 .. kept.size())
  at::Tensor full_in, full_out;     // [padded], the gathered v and the local product
  std::vector<at::Tensor> out_views;
  at::Tensor gradient;  // [chunk]
  double loss = 0;
  double count = 0;
  HessianStats stats;

  Impl(Program& the_program, DataShard the_data, Communicator& the_comm, const HessianOptions& the_options)
      : program(the_program),
        comm(the_comm),
        options(the_options),
        shard(Shard::of(the_program.layout().size(), the_comm.size(), the_comm.rank())),
        data(std::move(the_data)) {
    if (options.output_index < 0 || options.output_index >= static_cast<int>(program.outputs().size()))
      throw UsageError("--output-index " + std::to_string(options.output_index) + ": the model has " +
                       std::to_string(program.outputs().size()) + " output" +
                       (program.outputs().size() == 1 ? "" : "s") + ", numbered from 0");
    full_in = at::zeros({shard.padded()}, tensor_options());
    full_out = at::zeros({shard.padded()}, tensor_options());
    out_views = program.layout().views(full_out);
  }

  at::TensorOptions tensor_options() const {
    return at::TensorOptions().dtype(program.options().dtype).device(program.options().device);
  }

  /// Rows [range) of this shard as the program takes them, padded to `padded_rows` by repeating the first row.
  Batch make_batch(RowRange range, std::int64_t padded_rows) const {
    Batch batch;
    batch.rows = range.size();
    batch.first_row = data.rows.begin + range.begin;
    const auto cut = [&](const at::Tensor& tensor) {
      at::Tensor rows = tensor.narrow(0, range.begin, range.size());
      if (padded_rows <= range.size()) return rows;
      std::vector<std::int64_t> repeats(static_cast<std::size_t>(tensor.dim()), -1);
      repeats[0] = padded_rows - range.size();
      return at::cat({rows, rows.narrow(0, 0, 1).expand(repeats)});
    };
    std::vector<at::Tensor> inputs;
    for (const at::Tensor& input : data.inputs) inputs.push_back(cut(input));
    batch.inputs = program.prepare_inputs(inputs);
    if (needs_target(options.loss.kind) && data.target.defined())
      batch.target = data.target.narrow(0, range.begin, range.size());
    return batch;
  }

  at::Tensor output_of(const Batch& batch) const {
    const std::vector<at::Tensor> outputs = program.run(batch.inputs);
    const at::Tensor& output = outputs[static_cast<std::size_t>(options.output_index)];
    if (!output.defined() || !at::isFloatingType(output.scalar_type()))
      throw InputError("output " + std::to_string(options.output_index) + " of the model is not a floating tensor");
    if (options.loss.kind != LossKind::kOutput && output.dim() > 0 && output.size(0) > batch.rows)
      return output.narrow(0, 0, batch.rows);
    return output;
  }

  at::Tensor loss_of(const Batch& batch) const {
    return loss_sum(options.loss, output_of(batch), batch.target, batch.rows);
  }

  GradientGraph gradient_graph(const Batch& batch) const {
    const at::Tensor loss_value = loss_of(batch);
    GradientGraph graph;
    const std::vector<at::Tensor> gradients = torch::autograd::grad(
        {loss_value}, program.parameters(), {}, /*retain_graph=*/true, /*create_graph=*/true, /*allow_unused=*/true);
    for (std::size_t i = 0; i < gradients.size(); ++i)
      if (gradients[i].defined() && gradients[i].requires_grad()) {
        graph.gradients.push_back(gradients[i]);
        graph.parameters.push_back(i);
      }
    return graph;
  }

  /// full_out += one tensor per parameter; undefined ones are zero.
  void accumulate(const std::vector<at::Tensor>& tensors) {
    at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      if (tensors[i].defined()) out_views[i].add_(tensors[i]);
  }

  /// full_out += Σ over the graph's micro-batch of H v, v given per parameter.
  void add_product(const GradientGraph& graph, const std::vector<at::Tensor>& v, bool keep) {
    if (graph.gradients.empty()) return;  // the loss is linear in the parameters
    std::vector<at::Tensor> weights;
    for (const std::size_t parameter : graph.parameters) weights.push_back(v[parameter]);
    const std::vector<at::Tensor> product = torch::autograd::grad(graph.gradients, program.parameters(), weights, keep,
                                                                  /*create_graph=*/false, /*allow_unused=*/true);
    accumulate(product);
  }

  void local_product(const at::Tensor& full_v) {
    at::AutoGradMode grad(true);
    {
      at::NoGradGuard no_grad;
      full_out.zero_();
    }
    const std::vector<at::Tensor> v = program.layout().views(full_v);
    for (std::size_t i = 0; i < batches.size(); ++i) {
      if (i < kept.size()) {
        add_product(kept[i], v, /*keep=*/true);
      } else {
        add_product(gradient_graph(batches[i]), v, /*keep=*/false);
      }
    }
  }

  // --- construction -------------------------------------------------------------------------------------------------

  std::int64_t rows() const { return data.rows.size(); }

  std::int64_t padded_rows(RowRange range) const {
    const auto fixed = program.static_batch();
    if (!fixed || range.size() == *fixed) return range.size();
    if (options.loss.kind == LossKind::kOutput)
      throw InputError("the model was exported with a fixed batch of " + std::to_string(*fixed) + ", and " +
                       std::to_string(range.size()) +
                       " rows are left over on a rank; loss 'output' cannot mask them, so give "
                       "each rank a multiple of it (--samples), or export with a dynamic batch");
    return *fixed;
  }

  /// The trial on the first rows: everything that can be wrong with model and data together shows here.
  void check_model() {
    if (rows() == 0) return;
    at::AutoGradMode grad(true);
    const std::int64_t few = program.static_batch().value_or(std::min<std::int64_t>(2, rows()));
    const RowRange range{0, std::min(few, rows())};
    Batch batch = make_batch(range, padded_rows(range));
    const at::Tensor output = output_of(batch);
    batch.target = check_target(options.loss, output, batch.target, batch.first_row);
    if (!output.requires_grad())
      throw InputError("output " + std::to_string(options.output_index) +
                       " of the model does not depend on its parameters");
    if (options.check_double_backward) program.check_twice_differentiable(batch.inputs);
    // What no node shows alone, such as a tensor that is saved for the backward and then written to.
    try {
      add_product(gradient_graph(batch), program.layout().views(full_in), /*keep=*/false);
    } catch (const c10::OutOfMemoryError&) {
      throw;
    } catch (const c10::Error& e) {
      if (is_allocation_failure(e)) throw;
      throw InputError("the model cannot be differentiated twice: " + first_line(e));
    }
  }

  /// What a trial of a micro-batch size cost.
  struct Trial {
    double seconds_per_row = 0;
    std::int64_t bytes_per_row = 0;  // of the gradient graph; on the CPU
  };

  /// A product in one micro-batch of `size`, on this rank's first rows.
  Trial try_micro_batch(std::int64_t size) {
    at::AutoGradMode grad(true);
    Batch batch = make_batch({0, size}, size);
    {
      at::NoGradGuard no_grad;
      batch.target = check_target(options.loss, output_of(batch), batch.target, batch.first_row);
    }
    const std::vector<at::Tensor> v = program.layout().views(full_in);
    Trial trial;
    double seconds = 0;
    for (int pass = 0; pass < 2 && seconds < 1.0; ++pass) {  // the first warms up, unless it is long enough to trust
      const std::int64_t before = heap_bytes_in_use();
      const Timer timer;
      const GradientGraph graph = gradient_graph(batch);
      trial.bytes_per_row = std::max<std::int64_t>(heap_bytes_in_use() - before, 0) / size;
      add_product(graph, v, false);
      finish_device_work(full_out);
      seconds = timer.elapsed_s();
    }
    trial.seconds_per_row = seconds / static_cast<double>(size);
    return trial;
  }

  /// Half of what is free on the node, divided by its ranks.
  std::int64_t half_of_memory_share() const {
    return available_memory_bytes() / (2 * std::max(1, options.ranks_on_node));
  }

  /// The fewest and the most rows that the program takes at once.
  std::int64_t fewest_rows() const {
    std::int64_t fewest = 1;
    for (const InputSpec& input : program.inputs())
      if (!input.shape.empty()) fewest = std::max(fewest, input.shape[0].min);
    return fewest;
  }
  std::int64_t most_rows() const {
    std::int64_t most = kMostRows;
    for (const InputSpec& input : program.inputs())
      if (!input.shape.empty() && input.shape[0].max > 0) most = std::min(most, input.shape[0].max);
    return most;
  }

  /// Goes up from a few rows while that makes a row cheaper (by 3 % at least), the memory lasts and the program takes
  /// it.
  std::int64_t measured_micro_batch() {
    // A product takes about three times its gradient graph. Half of the memory is left to graphs that will be kept.
    const std::int64_t budget = half_of_memory_share();
    const std::int64_t most = std::min(rows(), most_rows());
    std::int64_t best = 0;
    Trial best_trial;
    for (std::int64_t size = std::min(most, std::max<std::int64_t>(fewest_rows(), 4)); size <= most; size *= 2) {
      if (best > 0 && 3 * best_trial.bytes_per_row > budget / size) break;
      Trial trial;
      try {
        trial = try_micro_batch(size);
      } catch (const std::exception&) {
        if (best == 0) throw;
        break;  // too large for the memory, or for the program
      }
      if (best > 0 && trial.seconds_per_row > 0.97 * best_trial.seconds_per_row) {
        if (size > 2 * best && size > 16) break;  // two sizes in a row brought nothing
        continue;
      }
      best = size;
      best_trial = trial;
    }
    return std::max<std::int64_t>(best, 1);
  }

  /// Collective: one size for all ranks, measured by the one that has the first row.
  void choose_micro_batch() {
    std::int64_t size = options.micro_batch;
    if (const auto fixed = program.static_batch()) {
      if (size > 0 && size != *fixed)
        throw UsageError("--micro-batch " + std::to_string(size) + ": the model was exported with a fixed batch of " +
                         std::to_string(*fixed));
      size = *fixed;
    }
    if (size <= 0) {
      double found = 0;
      agree(comm, [&] {
        if (has_first_row()) found = static_cast<double>(measured_micro_batch());
      });
      comm.all_reduce_sum(std::span<double>(&found, 1));
      size = static_cast<std::int64_t>(found);
    }
    stats.micro_batch = size;
  }

  bool has_first_row() const { return rows() > 0 && data.rows.begin == 0; }

  /// This rank's micro-batches. A last one of a single row, or of fewer than the program takes, shares with the one
  /// before: many models squeeze() a batch of one away.
  std::vector<RowRange> own_micro_batches() const {
    std::vector<RowRange> ranges = micro_batches({0, rows()}, stats.micro_batch);
    const std::size_t m = ranges.size();
    if (m > 1 && !program.static_batch() && ranges[m - 1].size() < std::max<std::int64_t>(2, fewest_rows()) &&
        ranges[m - 2].size() > 2) {
      const std::int64_t middle = (ranges[m - 2].begin + ranges[m - 1].end + 1) / 2;
      ranges[m - 2].end = ranges[m - 1].begin = middle;
    }
    return ranges;
  }

  /// Adds a micro-batch's gradient to full_out. @return its loss
  double add_gradient(const Batch& batch) {
    const at::Tensor value = loss_of(batch);
    accumulate(torch::autograd::grad({value}, program.parameters(), {}, false, false, /*allow_unused=*/true));
    return value.item<double>();
  }

  /// One pass over the data: checks every target, and sums loss, count and gradient into full_out.
  void first_pass(double& local_loss, double& local_count) {
    at::AutoGradMode grad(true);
    at::Tensor output_like;  // an output of the first micro-batch's size
    for (const RowRange range : own_micro_batches()) {
      Batch batch = make_batch(range, padded_rows(range));
      {
        at::NoGradGuard no_grad;  // the output's shape is all that is needed, and rows of one size share it
        if (batches.empty() || range.size() != batches.front().rows || options.loss.kind == LossKind::kOutput)
          output_like = output_of(batch);
        batch.target = check_target(options.loss, output_like, batch.target, batch.first_row);
      }
      local_loss += add_gradient(batch);
      local_count += loss_count(options.loss, batch.target, batch.rows);
      batches.push_back(std::move(batch));
    }
    stats.micro_batches = static_cast<std::int64_t>(batches.size());
    if (!std::isfinite(local_loss))
      throw InputError("the loss is not finite (" + std::to_string(local_loss) + ") on rows " +
                       std::to_string(data.rows.begin) + " to " + std::to_string(data.rows.end - 1));
  }

  /// Waits for what CUDA has been given, so that a clock read next tells the truth.
  void finish_device_work(const at::Tensor& result) const {
    if (program.options().device.is_cuda()) result.narrow(0, 0, 1).item<double>();
  }

  /// Times the gradient, warm: the median of three on the first micro-batch, scaled to this rank's rows. Dirties
  /// full_out.
  void time_gradient() {
    if (batches.empty()) return;
    at::AutoGradMode grad(true);
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) {
      const Timer timer;
      add_gradient(batches.front());
      finish_device_work(full_out);
      seconds.push_back(timer.elapsed_s());
    }
    std::sort(seconds.begin(), seconds.end());
    stats.gradient_s = seconds[1] / static_cast<double>(batches.front().rows) * static_cast<double>(rows());
  }

  void loss_and_gradient() {
    double local_loss = 0, local_count = 0;
    agree(comm, [&] { first_pass(local_loss, local_count); });
    std::vector<double> sums{local_loss, local_count};
    comm.all_reduce_sum(std::span<double>(sums));
    if (!(sums[1] > 0)) throw InputError("every target is the ignored index: the loss has no terms");
    count = sums[1];
    loss = sums[0] / count;
    gradient = at::zeros({shard.chunk}, tensor_options());
    comm.reduce_scatter_sum(full_out, gradient);
    gradient.div_(count);
    double finite = at::isfinite(gradient).all().item<bool>() ? 0.0 : 1.0;
    comm.all_reduce_sum(std::span<double>(&finite, 1));
    if (finite > 0) throw InputError("the gradient of the loss is not finite");
  }

  /// Keeps the gradient graphs of as many micro-batches as the budget allows; measured on the first one.
  void keep_graphs() {
    at::AutoGradMode grad(true);
    std::int64_t budget = options.graph_budget_bytes;
    if (budget == 0 || batches.empty()) return;
    const bool automatic = budget < 0;
    if (program.options().device.is_cuda() && automatic) return;
    if (automatic) budget = half_of_memory_share();
    std::int64_t used = 0, largest = 0;
    for (const Batch& batch : batches) {
      if (used + largest > budget && !kept.empty()) break;
      const std::int64_t before = heap_bytes_in_use();
      kept.push_back(gradient_graph(batch));
      const std::int64_t bytes = std::max<std::int64_t>(heap_bytes_in_use() - before, 0);
      used += bytes;
      largest = std::max(largest, bytes);
      if (used > budget) {
        kept.pop_back();
        break;
      }
    }
    stats.graph_bytes = largest;
    stats.kept_graphs = static_cast<std::int64_t>(kept.size());
  }
};

HessianOperator::HessianOperator(Program& program, DataShard data, Communicator& comm, const HessianOptions& options) {
  agree(comm, [&] {
    impl_ = std::make_unique<Impl>(program, std::move(data), comm, options);
    impl_->check_model();
  });
  impl_->choose_micro_batch();
  impl_->full_out.zero_();
  impl_->loss_and_gradient();
  agree(comm, [&] {
    impl_->time_gradient();
    impl_->keep_graphs();
  });
}

HessianOperator::~HessianOperator() = default;

Communicator& HessianOperator::comm() const { return impl_->comm; }
const Shard& HessianOperator::shard() const { return impl_->shard; }
at::TensorOptions HessianOperator::options() const { return impl_->tensor_options(); }
double HessianOperator::loss() const { return impl_->loss; }
double HessianOperator::count() const { return impl_->count; }
const at::Tensor& HessianOperator::gradient() const { return impl_->gradient; }
const HessianStats& HessianOperator::stats() const { return impl_->stats; }

void HessianOperator::apply(const at::Tensor& x_local, at::Tensor& y_local) {
  const Timer total;
  double communication_s = 0;
  const bool alone = impl_->comm.size() == 1;
  if (!alone) {
    const Timer timer;
    impl_->comm.all_gather(x_local, impl_->full_in);
    communication_s += timer.elapsed_s();
  }
  agree(impl_->comm, [&] { impl_->local_product(alone ? x_local : impl_->full_in); });
  const Timer timer;
  if (alone) {
    y_local.copy_(impl_->full_out);
  } else {
    impl_->comm.reduce_scatter_sum(impl_->full_out, y_local);
  }
  communication_s += timer.elapsed_s();
  y_local.div_(impl_->count);
  impl_->finish_device_work(y_local);
  ++impl_->stats.products;
  impl_->stats.product_s += total.elapsed_s();
  impl_->stats.communication_s += communication_s;
}

}  // namespace hesspect
