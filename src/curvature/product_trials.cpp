#include "product_trials.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "allocation_meter.h"
#include "hesspect/core/errors.h"
#include "hesspect/core/timer.h"

namespace hesspect {
namespace {

/// The fewest (where the program takes them) and most rows of a micro-batch that is chosen here.
constexpr std::int64_t kFewRows = 4;
constexpr std::int64_t kMostTrialRows = 1024;
/// Costs of a row within this ratio count as equal: clocks are no better.
constexpr double kEqualCost = 1.03;
/// A measurement that has taken this long is not repeated.
constexpr double kLongEnough_s = 0.25;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

[[noreturn]] void refuse(std::int64_t rows, double needed_bytes, std::int64_t memory_bytes) {
  const auto mib = [](double bytes) { return std::to_string(static_cast<std::int64_t>(bytes / 1048576.0 + 0.5)); };
  throw MemoryError(
      static_cast<std::int64_t>(needed_bytes), memory_bytes,
      "a product of a micro-batch of " + std::to_string(rows) + " rows takes " + mib(needed_bytes) + " MiB and " +
          mib(static_cast<double>(memory_bytes)) +
          " MiB are free: give --micro-batch a smaller number, run fewer ranks on a node, or free memory");
}

}  // namespace

LinearBytes LinearBytes::through(std::int64_t a_rows, std::int64_t a_bytes, std::int64_t b_rows, std::int64_t b_bytes) {
  LinearBytes line;
  line.row = std::max<std::int64_t>(0, (b_bytes - a_bytes + b_rows - a_rows - 1) / (b_rows - a_rows));
  line.fixed = b_bytes - b_rows * line.row;
  if (line.fixed < 0) line = {0, (b_bytes + b_rows - 1) / b_rows};
  return line;
}

ProductTrials::ProductTrials(LocalLoss& local, const at::Tensor& vector) : local_(local), stays_(vector.defined()) {
  const std::int64_t n = local.program().layout().size();
  const auto room = [&] { return at::zeros({1, vector_stride(n)}, local.tensor_options()); };
  sums_ = room();
  sum_ = sums_[0].narrow(0, 0, n);
  v_ = local.program().flat_parameters().unsqueeze(0);
  if (!stays_) return;
  inputs_ = room();
  v_ = inputs_.narrow(1, 0, n);
  v_[0].copy_(vector);
}

std::shared_ptr<WarmProducts> ProductTrials::tried(std::int64_t rows) const {
  auto trial = std::make_shared<WarmProducts>();
  trial->batches.push_back(local_.batch({0, rows}));
  trial->products.push_back(local_.products(trial->batches.front()));
  return trial;
}

void ProductTrials::add(BatchProducts& products) const {
  products.add(v_, sum_.unsqueeze(0));
  finish_device_work(sum_);
}

/// While nothing is kept. A short one is timed again, warm: the median of three.
void ProductTrials::add_gradient(WarmProducts& trial) const {
  trial.gradient = at::zeros_like(sum_);
  std::vector<double> seconds;
  const auto timed = [&](const at::Tensor& to) {
    const Timer timer;
    const double loss = trial.products.front()->add_gradient(to);
    finish_device_work(to);
    seconds.push_back(timer.elapsed_s());
    return loss;
  };
  trial.loss = timed(trial.gradient);
  if (seconds.front() <= kLongGradient_s) {
    seconds.clear();
    for (int i = 0; i < 3; ++i) timed(sum_);
  }
  trial.gradient_s = median(seconds);
}

std::shared_ptr<WarmProducts> ProductTrials::take_last() {
  if (last_ == nullptr) return nullptr;
  last_->inputs = inputs_;
  last_->sums = sums_;
  return std::move(last_);
}

ProductTrial ProductTrials::product(std::int64_t rows, int repeats) {
  if (const auto known = known_.find(rows); known != known_.end() && repeats == 0) return known->second;
  last_.reset();
  const std::shared_ptr<WarmProducts> work = tried(rows);
  const std::unique_ptr<BatchProducts>& products = work->products.front();
  const bool stays = stays_ && rows == local_.rows();
  if (stays) add_gradient(*work);
  ProductTrial trial;
  trial.rows = rows;
  trial.seconds = std::numeric_limits<double>::infinity();
  const Timer total;
  for (int i = 0; i < repeats && (i == 0 || total.elapsed_s() < kLongEnough_s); ++i) {
    const Timer timer;
    add(*products);
    trial.seconds = std::min(trial.seconds, timer.elapsed_s());
  }
  // The bytes take a pass of their own: counting them slows it down. A short one is made twice: libraries keep
  // something of the first, which would count.
  count_bytes(*products, trial);
  if (repeats == 0 && trial.graph_s + trial.pullback_s < kLongEnough_s) {
    products->drop();
    count_bytes(*products, trial);
  }
  if (stays) {
    work->graph_bytes = trial.graph_bytes;
    work->product_s = trial.pullback_s;
    last_ = work;
  }
  return known_[rows] = trial;
}

void ProductTrials::count_bytes(BatchProducts& products, ProductTrial& trial) {
  const at::Device device = local_.program().options().device;
  Timer timer;
  if (!local_.choice().segments) {
    const AllocationMeter meter(device);
    products.keep();
    finish_device_work(sum_);
    trial.graph_s = timer.elapsed_s();
    trial.graph_bytes = std::max<std::int64_t>(0, meter.held_bytes());
    trial.building_bytes = std::max<std::int64_t>(0, meter.peak_bytes() - trial.graph_bytes);
  }
  sum_.zero_();
  // What autograd needs to record a graph is gone when a product goes back through it.
  const AllocationMeter meter(device);
  timer.reset();
  add(products);
  trial.pullback_s = timer.elapsed_s();
  trial.transient_bytes = std::max<std::int64_t>(0, meter.peak_bytes());
}

ProductTrials::Times ProductTrials::times(std::int64_t rows) {
  // The meter's own time hardly shows in a pass that is long.
  if (const auto known = known_.find(rows); known != known_.end())
    if (const ProductTrial& trial = known->second; trial.graph_s + trial.pullback_s > kLongEnough_s)
      return {trial.graph_s, trial.pullback_s};
  const auto timed = [&](const std::function<void()>& work) {
    const Timer timer;
    work();
    finish_device_work(sum_);
    return timer.elapsed_s();
  };
  const bool is_last = last_ != nullptr && rows == local_.rows();
  const std::shared_ptr<WarmProducts> trial = is_last ? last_ : tried(rows);
  const std::unique_ptr<BatchProducts>& products = trial->products.front();
  std::vector<double> graph_s, pullback_s;
  const Timer total;
  for (int i = 0; i < 3 && total.elapsed_s() < kLongEnough_s; ++i) {
    products->drop();
    if (local_.choice().segments) {
      graph_s.push_back(0);  // nothing is kept: all of it is made in each product
    } else {
      graph_s.push_back(timed([&] { products->keep(); }));
    }
    sum_.zero_();
    pullback_s.push_back(timed([&] { add(*products); }));
  }
  trial->product_s = median(pullback_s);
  return {median(graph_s), median(pullback_s)};
}

std::int64_t ProductTrials::output_bytes(std::int64_t rows) {
  const MicroBatch batch = local_.batch({0, rows});
  const at::Tensor output = batch.output_like.defined() ? batch.output_like : local_.output(batch);
  return output.numel() * static_cast<std::int64_t>(output.element_size());
}

ProductTrial ProductTrials::first_that_fits(std::int64_t rows, int repeats, std::int64_t memory_bytes) {
  for (;; rows = std::max(local_.fewest_rows(), local_.whole_units(rows / 2))) {
    const bool smallest = rows <= local_.fewest_rows();
    try {
      const ProductTrial trial = product(rows, repeats);
      if (trial.peak_bytes() <= memory_bytes) return trial;
      forget_last();
      if (smallest) refuse(rows, static_cast<double>(trial.peak_bytes()), memory_bytes);
    } catch (const std::exception& e) {
      if (smallest || !is_out_of_memory(e)) throw;
    }
  }
}

std::int64_t ProductTrials::best_micro_batch(std::int64_t memory_bytes) {
  const std::int64_t least = std::min(local_.rows(), local_.fewest_rows());
  const std::int64_t most = std::max(
      least,
      local_.whole_units(std::min({local_.rows(), kMostTrialRows, local_.most_rows().value_or(kMostTrialRows)})));
  const std::int64_t few = std::min(most, std::max(least, local_.whole_units(kFewRows)));
  // A size alone needs no clock.
  std::vector<ProductTrial> trials{first_that_fits(few, 2 * few <= most ? 3 : 0, memory_bytes)};
  if (2 * few > most) return trials[0].rows;
  double cheapest = trials[0].seconds_per_row();
  int dearer_in_a_row = 0;
  // Where memory was short already, a size above the one that fitted was too large.
  for (std::int64_t size = 2 * few; trials[0].rows == few && size <= most && dearer_in_a_row < 2; size *= 2) {
    if (2 * trials.back().peak_bytes() > memory_bytes) break;  // twice the rows take less than twice the memory
    try {
      trials.push_back(product(size, 3));
    } catch (const std::exception&) {
      break;  // too large for the memory after all, or for the program
    }
    const double cost = trials.back().seconds_per_row();
    dearer_in_a_row = cost > kEqualCost * cheapest ? dearer_in_a_row + 1 : 0;
    cheapest = std::min(cheapest, cost);
  }
  std::int64_t best = trials[0].rows;
  for (const ProductTrial& trial : trials)
    if (trial.seconds_per_row() <= kEqualCost * cheapest) best = trial.rows;
  return best;
}

void ProductTrials::require_room(std::int64_t rows, std::int64_t memory_bytes) {
  const bool fixed = local_.program().static_batch().has_value();
  const std::int64_t few = fixed ? rows : std::min(rows, std::max<std::int64_t>(2, local_.fewest_rows()));
  const std::int64_t bytes = product(few, 0).peak_bytes();
  double needed = static_cast<double>(bytes);
  if (!fixed && 2 * few <= rows)
    needed = LinearBytes::through(few, bytes, 2 * few, product(2 * few, 0).peak_bytes()).at(rows);
  if (needed > static_cast<double>(memory_bytes)) refuse(rows, needed, memory_bytes);
}

}  // namespace hesspect
