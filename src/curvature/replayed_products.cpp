#include "replayed_products.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <limits>
#include <utility>

#include "hesspect/core/log.h"
#include "hesspect/core/text.h"

namespace hesspect {
namespace {

/// The product that is timed, and the one that is recorded.
constexpr int kTimed = 2, kRecorded = 3;
/// Below this share of the time the host launches fast enough: a graph would take memory for next to nothing.
constexpr double kLaunchShare = 0.5;
/// What a graph must take of the time at most.
constexpr double kFaster = 0.95;
/// Numbers of vectors that are recorded: each takes launches of its own.
constexpr std::size_t kMostCounts = 4;

bool is_same_place(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() && a.data_ptr() == b.data_ptr() && a.sizes() == b.sizes() && a.strides() == b.strides();
}

}  // namespace

ReplayedProducts::ReplayedProducts(LaunchRecorder& recorder, std::string name, Clock clock)
    : recorder_(recorder), name_(std::move(name)), clock_(std::move(clock)) {}

void ReplayedProducts::say(const std::string& what) const { log_debug("CUDA graph of " + name_ + ": " + what); }

void ReplayedProducts::add(const at::Tensor& v, const at::Tensor& sums, const std::function<void()>& product) {
  const std::int64_t count = v.size(0);
  if (stopped_ || (by_count_.size() == kMostCounts && !by_count_.contains(count))) return product();
  State& state = by_count_[count];
  if (state.graph != nullptr && !(is_same_place(state.v, v) && is_same_place(state.sums, sums))) state = State{};
  if (state.graph != nullptr) return state.graph->replay();
  ++state.products;
  if (!state.settled && state.products == kTimed) return time_launches(state, product);
  if (!state.settled && state.products == kRecorded) return try_graph(state, v, sums, product);
  product();
}

double ReplayedProducts::timed(const std::function<void()>& work) {
  recorder_.wait();
  const double begin = clock_();
  work();
  recorder_.wait();
  return clock_() - begin;
}

void ReplayedProducts::time_launches(State& state, const std::function<void()>& product) {
  double launches_s = 0;
  state.launch_by_launch_s = timed([&] {
    const double begin = clock_();
    product();
    launches_s = clock_() - begin;
  });
  if (launches_s >= kLaunchShare * state.launch_by_launch_s) return;
  state.settled = true;
  say("none, launches take " + format_duration(launches_s) + " of a product's " +
      format_duration(state.launch_by_launch_s));
}

/// Whether a replay gave what launching kernel by kernel did: the same bits, for a product must not depend on how it
/// was made. Where the GPU adds in any order, as with atomics, launches don't give the same bits again either.
/// @param before, expected  the sums before a product and after it
/// @param sums  after a replay; whatever after the call
bool ReplayedProducts::is_as_good(const at::Tensor& before, const at::Tensor& expected, const at::Tensor& sums,
                                  const std::function<void()>& product) {
  if (at::equal(sums, expected)) return true;
  const auto norm = [](const at::Tensor& t) { return t.to(at::kDouble).norm().item<double>(); };
  const double size = std::max(norm(expected - before), norm(before)), error = norm(sums - expected) / size;
  const double rounding = sums.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon()
                                                            : std::numeric_limits<float>::epsilon();
  if (!std::isfinite(norm(expected))) {
    say("none, the product is not finite");
  } else if (!(error < 100 * rounding)) {
    log_warning("CUDA graph of " + name_ + ": its product is another (relative difference " + format_number(error) +
                "); products are launched kernel by kernel");
  } else {
    sums.copy_(before);
    recorder_.rehearse(product);
    if (!at::equal(sums, expected)) return true;
    say("none, its product differs in rounding");
  }
  return false;
}

void ReplayedProducts::try_graph(State& state, const at::Tensor& v, const at::Tensor& sums,
                                 const std::function<void()>& product) {
  state.settled = true;
  at::Tensor before, expected;
  try {
    before = sums.clone();
    recorder_.rehearse(product);
    expected = sums.clone();
  } catch (const std::exception& e) {  // as where memory is short; what else is wrong, the product will say again
    say(std::string("none, ") + e.what());
    if (before.defined()) sums.copy_(before);
    return product();
  }
  try {
    std::unique_ptr<LaunchGraph> graph = recorder_.record(product);
    double replay_s = 0;
    for (int i = 0; i < 2; ++i) {  // the first one brings the graph to the GPU
      sums.copy_(before);
      replay_s = timed([&] { graph->replay(); });
      const bool is_right = is_as_good(before, expected, sums, product);
      sums.copy_(expected);
      if (!is_right) return;
    }
    const std::string times =
        format_duration(replay_s) + " a product instead of " + format_duration(state.launch_by_launch_s);
    if (replay_s > kFaster * state.launch_by_launch_s) return say("none, it takes " + times);
    say(times + ", " + format_bytes(recorder_.bytes()) + " for all so far");
    state.v = v;
    state.sums = sums;
    state.graph = std::move(graph);
  } catch (const std::exception& e) {
    say(std::string("none, ") + e.what());
    sums.copy_(expected);
  }
}

bool ReplayedProducts::replays() const {
  return std::ranges::any_of(by_count_, [](const auto& each) { return each.second.graph != nullptr; });
}

void ReplayedProducts::stop() {
  by_count_.clear();
  stopped_ = true;
}

}  // namespace hesspect
