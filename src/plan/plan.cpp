// The choice among layouts: all of them are worked out, which is cheap, and compared.
#include "hesspect/plan/plan.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

#include "hesspect/core/errors.h"
#include "hesspect/core/text.h"
#include "plan_model.h"

namespace hesspect {
namespace {

using plan_model::BasisChoice;
using plan_model::bytes_of;
using plan_model::Layout;

constexpr std::int64_t kMostLockStep = 8;
/// Forecasts that differ by less count as equal.
constexpr double kSameTime = 1.02;

std::vector<int> divisors(int number) {
  std::vector<int> found;
  for (int i = 1; i <= number / i; ++i) {
    if (number % i != 0) continue;
    found.push_back(i);
    if (i != number / i) found.push_back(number / i);
  }
  std::sort(found.begin(), found.end());
  return found;
}

void check(const PlanInputs& given) {
  const PlanRequest& request = given.request;
  const int world = given.machine.world;
  if (world < 1) throw UsageError("a plan needs at least one rank, not " + std::to_string(world));
  if (request.groups < 0 || (request.groups > 0 && world % request.groups != 0)) {
    std::vector<std::string> names;
    for (const int divisor : divisors(world)) names.push_back(std::to_string(divisor));
    throw UsageError("--groups " + std::to_string(request.groups) + " does not divide the " + std::to_string(world) +
                     (world == 1 ? " rank" : " ranks") + ": use one of " + format_names(names, 16));
  }
  if (given.problem.static_batch && given.measured() && request.micro_batch > 0 &&
      request.micro_batch != given.cost.micro_batch)
    throw UsageError("--micro-batch " + std::to_string(request.micro_batch) +
                     ": the model was exported with a batch of " + std::to_string(given.cost.micro_batch) +
                     " and takes no other; leave the option out");
  const bool is_shared =
      request.parameters == ParameterMemory::kSharded || request.parameters == ParameterMemory::kHost;
  if (is_shared && !given.by_shapes())
    throw UsageError("--parameters " + to_string(request.parameters) + " can't be planned without the model's shapes");
  if (request.parameters == ParameterMemory::kHost && !given.problem.on_gpu)
    throw UsageError("--parameters host keeps them beside a GPU; on CPUs it is --parameters sharded");
  if (request.basis_dtype && bytes_of(*request.basis_dtype) > given.problem.element_bytes)
    throw UsageError("--basis-dtype " + to_string(*request.basis_dtype) + " is wider than the run's " +
                     to_string(plan_model::vector_dtype(given.problem)) +
                     " vectors: use one no wider, or --dtype float64");
}

/// Widest first, and on a GPU the device before the host. On a CPU both are one.
std::vector<BasisChoice> basis_choices(const PlanInputs& given) {
  const PlanRequest& request = given.request;
  // Two rows are no basis to save on: they are as the vectors are.
  if (!given.demand.reorthogonalize) return {{plan_model::vector_dtype(given.problem), BasisMemory::kDevice}};
  std::vector<BasisChoice> choices;
  for (const ElementType dtype : {ElementType::kF64, ElementType::kF32, ElementType::kBF16}) {
    if (request.basis_dtype ? dtype != *request.basis_dtype : bytes_of(dtype) > given.problem.element_bytes) continue;
    if (!given.problem.on_gpu || request.basis_memory != BasisMemory::kHost)
      choices.push_back({dtype, BasisMemory::kDevice});
    if (given.problem.on_gpu && request.basis_memory != BasisMemory::kDevice)
      choices.push_back({dtype, BasisMemory::kHost});
  }
  return choices;
}

std::vector<std::int64_t> micro_batches(const PlanInputs& given) {
  if (given.request.micro_batch > 0) return {given.request.micro_batch};
  std::vector<std::int64_t> sizes{given.cost.micro_batch};
  while (!given.problem.static_batch && sizes.back() > 1) sizes.push_back(sizes.back() / 2);
  return sizes;
}

/// Ways to keep the parameters that a group of so many ranks may choose from.
std::vector<ParameterMemory> ways(const PlanInputs& given, int ranks) {
  if (given.request.parameters != ParameterMemory::kAuto) return {given.request.parameters};
  std::vector<ParameterMemory> all{ParameterMemory::kReplicated};
  if (given.by_shapes() && ranks > 1) all.push_back(ParameterMemory::kSharded);
  if (given.by_shapes() && given.problem.on_gpu) all.push_back(ParameterMemory::kHost);
  return all;
}

std::vector<Layout> layouts(const PlanInputs& given) {
  const PlanRequest& request = given.request;
  const std::int64_t probes = std::max<std::int64_t>(1, given.demand.probes);
  const std::int64_t tasks = std::max<std::int64_t>(probes, std::ssize(given.demand.blocks));
  std::vector<Layout> all;
  for (const int groups : divisors(given.machine.world)) {
    // A group without a probe or a block would idle.
    if (request.groups > 0 ? groups != request.groups : groups > tasks) continue;
    std::int64_t least = 1, most = 1;
    if (request.lock_step > 0) {
      least = most = std::min(request.lock_step, probes);
    } else if (given.measured()) {
      most = std::min(kMostLockStep, (probes + groups - 1) / groups);
    }
    for (std::int64_t together = least; together <= most; ++together)
      for (const BasisChoice& basis : basis_choices(given))
        for (const std::int64_t rows : micro_batches(given))
          for (const ParameterMemory way : ways(given, given.machine.world / groups))
            all.push_back({groups, together, basis, rows, way});
  }
  return all;
}

bool dtype_before(const Plan& a, const Plan& b) { return bytes_of(a.basis_dtype) > bytes_of(b.basis_dtype); }

/// Among equal forecasts: parameters on every rank, else shared on the device, a basis on the device, more groups
/// (fewer messages), fewer probes at a time, larger micro-batches.
bool preferred(const Plan& a, const Plan& b) {
  const auto key = [](const Plan& p) {
    return std::tuple(p.parameters, p.basis_memory == BasisMemory::kHost, -p.groups, p.lock_step, -p.micro_batch);
  };
  return key(a) < key(b);
}

/// The best layout with the bases as they are given.
Plan best_layout(const PlanInputs& given) {
  std::vector<Plan> fitting;
  Plan nearest;
  std::int64_t least_excess = std::numeric_limits<std::int64_t>::max();
  for (const Layout& layout : layouts(given)) {
    Plan plan = plan_model::with_bytes(given, layout);
    if (plan.fits) {
      // A narrower basis is for those who have no other way.
      if (!fitting.empty() && dtype_before(fitting.front(), plan)) continue;
      if (!fitting.empty() && dtype_before(plan, fitting.front())) fitting.clear();
      plan_model::add_forecast(given, plan);
      fitting.push_back(std::move(plan));
    } else if (fitting.empty()) {
      const std::int64_t excess = plan_model::excess_bytes(given, plan);
      if (excess >= least_excess) continue;
      least_excess = excess;
      nearest = std::move(plan);
    }
  }
  if (fitting.empty()) {
    plan_model::add_forecast(given, nearest);
    return nearest;
  }
  double fastest = std::numeric_limits<double>::infinity();
  for (const Plan& plan : fitting) fastest = std::min(fastest, plan.run_s);
  const Plan* best = nullptr;
  for (const Plan& plan : fitting)
    if (plan.run_s <= fastest * kSameTime && (best == nullptr || preferred(plan, *best))) best = &plan;
  return *best;
}

/// With as many rows of the longest run's basis as fit. Nothing where that is too few for what is asked of the run, or
/// where the basis cannot restart thick: its rows would have to be of the vectors' own dtype, on their device.
std::optional<Plan> with_thick_restarts(const PlanInputs& given) {
  const Demand& demand = given.demand;
  if (demand.wanted == 0 || !demand.reorthogonalize || demand.max_basis > 0) return std::nullopt;
  PlanInputs limited = given;
  const ElementType own = plan_model::vector_dtype(given.problem);
  if (given.request.basis_dtype.value_or(own) != own || given.request.basis_memory == BasisMemory::kHost)
    return std::nullopt;
  limited.request.basis_dtype = own;
  if (given.problem.on_gpu) limited.request.basis_memory = BasisMemory::kDevice;
  const auto plan_with = [&](std::int64_t rows) {
    limited.demand.max_basis = rows;
    limited.demand.most_steps = std::min(demand.most_steps, rows);
    return best_layout(limited);
  };
  std::int64_t enough = std::max(demand.steps + 1, 2 * demand.wanted + 16), too_many = demand.longest_steps;
  if (enough >= too_many || !plan_with(enough).fits) return std::nullopt;
  while (too_many - enough > 1) {
    const std::int64_t middle = enough + (too_many - enough) / 2;
    (plan_with(middle).fits ? enough : too_many) = middle;
  }
  return plan_with(enough);
}

}  // namespace

Plan make_plan(const PlanInputs& given) {
  check(given);
  Plan plan = best_layout(given);
  if (!plan.fits)
    if (auto thick = with_thick_restarts(given)) return *thick;
  return plan;
}

}  // namespace hesspect
