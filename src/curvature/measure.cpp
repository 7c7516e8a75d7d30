#include "hesspect/curvature/measure.h"

#include <ATen/core/grad_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>

#include "hesspect/core/errors.h"
#include "hesspect/core/memory.h"
#include "local_loss.h"
#include "product_trials.h"

namespace hesspect {
namespace {

/// Fits how bytes grow with rows, from a trial and one of half its rows. A program with a fixed batch has one size,
/// which says nothing about that: there a vector over the parameters is taken as the fixed part.
/// @param one_size  no other number of rows will be asked about
void fit_bytes(ProductTrials& trials, const LocalLoss& local, std::int64_t rows, bool one_size, BatchCost& cost) {
  const auto fixed_batch = local.program().static_batch();
  const ProductTrial whole = trials.product(fixed_batch ? std::min(rows, local.rows()) : rows, 0);
  LinearBytes graph, building, transient;
  const std::int64_t fewer = local.whole_units(rows / 2);
  if (!one_size && !fixed_batch && fewer >= local.fewest_rows()) {
    const ProductTrial half = trials.product(fewer, 0);
    graph = LinearBytes::through(half.rows, half.graph_bytes, rows, whole.graph_bytes);
    building = LinearBytes::through(half.rows, half.building_bytes, rows, whole.building_bytes);
    transient = LinearBytes::through(half.rows, half.transient_bytes, rows, whole.transient_bytes);
  } else {
    const std::int64_t vector_bytes = local.program().flat_parameters().nbytes();
    const auto split = [&](std::int64_t bytes) {
      const std::int64_t fixed = std::min(bytes, vector_bytes);
      return LinearBytes{fixed, (bytes - fixed + rows - 1) / rows};
    };
    graph = split(whole.graph_bytes);
    building = split(whole.building_bytes);
    transient = split(whole.transient_bytes);
  }
  cost.graph_fixed_bytes = graph.fixed;
  cost.graph_row_bytes = graph.row;
  cost.building_fixed_bytes = building.fixed;
  cost.building_row_bytes = building.row;
  cost.transient_fixed_bytes = transient.fixed;
  cost.transient_row_bytes = transient.row;
}

constexpr auto kAllPools = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::DeviceAllocator& device_allocator(at::Device device) {
  auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
  if (allocator == nullptr) throw UsageError("the memory of " + device.str() + " is not known");
  return *allocator;
}

c10::DeviceIndex index_of(at::Device device) {
  return device.has_index() ? device.index() : c10::impl::getDeviceGuardImpl(device.type())->getDevice().index();
}

/// Where all rows go through at once and take less than this share of the memory, nobody asks what fewer would take.
constexpr std::int64_t kSmallShare = 4;

/// Costs of products as `local` takes them.
BatchCost cost_of(LocalLoss& local, const HessianOptions& options, std::int64_t memory_bytes, WarmStart* warm) {
  ProductTrials trials(local, warm != nullptr ? warm->vector : at::Tensor());
  const auto given = local.given_micro_batch(options.micro_batch);
  if (given) trials.require_room(std::min(*given, local.rows()), memory_bytes);

  BatchCost cost;
  cost.micro_batch = given ? *given : trials.best_micro_batch(memory_bytes);
  const std::int64_t tried = std::min(cost.micro_batch, local.rows());
  const ProductTrials::Times times = trials.times(tried);
  const auto static_batch = local.program().static_batch();
  // Rows beyond the data's cost what the others do; a fixed batch was padded, and timed as a whole.
  const double scale = static_batch ? 1.0 : static_cast<double>(cost.micro_batch) / static_cast<double>(tried);
  cost.graph_s = scale * times.graph_s;
  cost.pullback_s = scale * times.pullback_s;
  const bool one_size =
      options.whole_data && tried == local.rows() && kSmallShare * trials.product(tried, 0).peak_bytes() < memory_bytes;
  if (!one_size) trials.forget_last();  // it would be in the others' way
  fit_bytes(trials, local, static_batch.value_or(tried), one_size, cost);
  cost.output_row_bytes = trials.output_bytes(tried) / tried;
  cost.product = options.product;
  if (warm != nullptr) warm->products = trials.take_last();
  return cost;
}

/// The tangent program, but where ops are left to autograd anyway and autograd as a whole is faster; in segments where
/// memory is too short for anything else.
BatchCost best_cost(LocalLoss& local, HessianOptions options, std::int64_t memory_bytes, WarmStart* warm) {
  const auto with = [&](ProductMode mode) {
    options.product = mode;
    local.choose(choice_of(options));
    return cost_of(local, options, memory_bytes, mode == ProductMode::kKept ? warm : nullptr);
  };
  BatchCost cost;
  try {
    cost = with(ProductMode::kKept);
  } catch (const MemoryError&) {
    return with(ProductMode::kSegments);
  }
  // Of what autograd records on a GPU nothing is rounded to bfloat16.
  const bool is_rounded = options.precision == MatrixPrecision::kBf16 && !local.program().options().device.is_cpu();
  const bool may_be_autograd = options.curvature == Curvature::kHessian && !is_rounded;
  if (!may_be_autograd || !local.tangent_program().uses_fallback()) return cost;
  if (warm != nullptr) warm->products = nullptr;  // nor does it fit beside autograd's
  const BatchCost autograd = with(ProductMode::kAutograd);
  const auto row_s = [](const BatchCost& c) { return c.pullback_s / static_cast<double>(c.micro_batch); };
  return row_s(autograd) < row_s(cost) ? autograd : cost;
}

}  // namespace

BatchCost measure_batch_cost(Program& program, const DataShard& first_rows, const HessianOptions& options,
                             std::int64_t memory_bytes, WarmStart* warm) {
  auto owned = std::make_unique<LocalLoss>(program, first_rows, options.loss, options.output_index, options.units);
  LocalLoss& local = *owned;
  const bool may_stay = options.whole_data && program.options().device.is_cpu() &&
                        options.precision == MatrixPrecision::kFp32 &&
                        (options.product == ProductMode::kAuto || options.product == ProductMode::kKept);
  if (!may_stay) warm = nullptr;
  if (local.rows() == 0) throw InputError("no rows to measure a micro-batch on");
  local.choose(choice_of(options));
  {
    at::AutoGradMode grad(true);
    local.check(options.check_double_backward);
  }
  const BatchCost cost = options.product == ProductMode::kAuto ? best_cost(local, options, memory_bytes, warm)
                                                               : cost_of(local, options, memory_bytes, warm);
  at::AutoGradMode grad(true);
  if (options.check_double_backward) local.check_turned_down();
  if (warm == nullptr || warm->products == nullptr) return cost;
  const WarmProducts& left = *warm->products;
  warm->bytes = left.graph_bytes;
  std::vector<at::Tensor> tensors{left.inputs, left.sums, left.gradient, first_rows.target, first_rows.weight};
  tensors.insert(tensors.end(), first_rows.inputs.begin(), first_rows.inputs.end());
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined()) warm->bytes += static_cast<std::int64_t>(tensor.nbytes());
  warm->products->local = std::move(owned);
  return cost;
}

std::int64_t free_memory_bytes(at::Device device) {
  if (device.is_cpu()) return available_memory_bytes();
  c10::DeviceAllocator& allocator = device_allocator(device);
  const c10::DeviceIndex index = index_of(device);
  const auto free = static_cast<std::int64_t>(allocator.getMemoryInfo(index).first);
  if (!allocator.initialized()) return free;
  // The allocator hands out first what it holds unused.
  const auto stats = allocator.getDeviceStats(index);
  return free + stats.reserved_bytes[kAllPools].current - stats.active_bytes[kAllPools].current;
}

std::int64_t peak_device_bytes(at::Device device) {
  if (device.is_cpu()) return 0;
  c10::DeviceAllocator& allocator = device_allocator(device);
  return allocator.initialized() ? allocator.getDeviceStats(index_of(device)).reserved_bytes[kAllPools].peak : 0;
}

}  // namespace hesspect
