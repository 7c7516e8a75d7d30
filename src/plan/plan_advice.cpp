// What to change where a plan does not fit. Nothing is said that make_plan has not agreed to.
#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

#include "hesspect/core/text.h"
#include "hesspect/plan/plan.h"
#include "plan_model.h"

namespace hesspect {
namespace {

constexpr std::size_t kMostSuggestions = 5;
constexpr int kMostRanks = 1 << 20;

class Advisor {
 public:
  Advisor(const PlanInputs& inputs, const ChangedDemand& changed) : inputs_(inputs), changed_(changed) {}

  std::vector<std::string> suggestions() {
    if (make_plan(inputs_).fits) return {};
    free_what_is_fixed();
    more_ranks();
    fewer_rows();
    fewer_steps();
    without_reorthogonalisation();
    more_memory();
    if (list_.size() > kMostSuggestions) list_.resize(kMostSuggestions);
    return list_;
  }

 private:
  bool fits(const Demand& demand) const {
    PlanInputs inputs = inputs_;
    inputs.demand = demand;
    return make_plan(inputs).fits;
  }

  /// An option that the user has fixed: how it is left to the plan, and the value that a plan then has for it.
  struct Fixed {
    std::function<void(PlanRequest&, DemandChange&)> free;
    std::function<std::string(const Plan&)> text;
  };

  std::vector<Fixed> fixed_options() const {
    std::vector<Fixed> fixed;
    if (inputs_.request.lock_step > 1)
      fixed.push_back({[](PlanRequest& r, DemandChange&) { r.lock_step = 1; },
                       [](const Plan& p) { return "--lock-step " + std::to_string(p.lock_step); }});
    if (inputs_.request.groups > 1)
      fixed.push_back({[](PlanRequest& r, DemandChange&) { r.groups = 0; },
                       [](const Plan& p) { return "--groups " + std::to_string(p.groups); }});
    if (inputs_.request.micro_batch > 1 && !inputs_.problem.static_batch && inputs_.cost.micro_batch > 0)
      fixed.push_back({[](PlanRequest& r, DemandChange&) { r.micro_batch = 0; },
                       [](const Plan& p) { return "--micro-batch " + std::to_string(p.micro_batch); }});
    if (inputs_.request.basis_dtype)
      fixed.push_back({[](PlanRequest& r, DemandChange&) { r.basis_dtype.reset(); },
                       [](const Plan& p) { return "--basis-dtype " + to_string(p.basis_dtype); }});
    if (inputs_.problem.on_gpu && inputs_.request.basis_memory)
      fixed.push_back({[](PlanRequest& r, DemandChange&) { r.basis_memory.reset(); },
                       [](const Plan& p) { return "--basis-memory " + to_string(p.basis_memory); }});
    if (inputs_.demand.max_basis > 0)
      fixed.push_back({[](PlanRequest&, DemandChange& change) { change.max_basis = 0; },
                       [](const Plan& p) { return "--max-basis " + std::to_string(p.max_basis); }});
    return fixed;
  }

  /// Options of the user's that a better value replaces: each alone, then all together.
  void free_what_is_fixed() {
    const std::vector<Fixed> fixed = fixed_options();
    const auto freed = [&](std::span<const Fixed> options) {
      PlanInputs inputs = inputs_;
      DemandChange change;
      for (const Fixed& one : options) one.free(inputs.request, change);
      const auto demand = change.max_basis ? changed_(change) : inputs_.demand;
      if (!demand) return;
      inputs.demand = *demand;
      const Plan found = make_plan(inputs);
      if (!found.fits) return;
      std::string text;
      for (const Fixed& one : options) text += (text.empty() ? "" : " ") + one.text(found);
      list_.push_back(text);
    };
    for (const Fixed& one : fixed) freed({&one, 1});
    if (list_.empty() && fixed.size() > 1) freed(fixed);
  }

  /// The fewest ranks that do in one group, each with as much memory as now; if no number does because of --lock-step,
  /// with one probe at a time.
  void more_ranks() {
    PlanInputs inputs = inputs_;
    inputs.request.groups = 1;
    if (ranks_that_do(inputs)) return;
    if (inputs.request.lock_step <= 1) return;
    inputs.request.lock_step = 1;
    ranks_that_do(inputs);
  }

  bool ranks_that_do(PlanInputs inputs) {
    const auto do_fit = [&](int ranks) {
      inputs.machine.world = ranks;
      return make_plan(inputs).fits;
    };
    if (do_fit(inputs_.machine.world)) return true;  // fewer groups are enough, which has been said
    int too_few = inputs_.machine.world, enough = 2 * inputs_.machine.world;
    while (!do_fit(enough)) {
      if (enough >= kMostRanks) return false;
      too_few = enough;
      enough *= 2;
    }
    while (enough - too_few > 1) {
      const int middle = too_few + (enough - too_few) / 2;
      (do_fit(middle) ? enough : too_few) = middle;
    }
    list_.push_back("at least " + std::to_string(enough) + " ranks with as much memory each (mpirun -n " +
                    std::to_string(enough) + ", --groups 1" +
                    (inputs.request.lock_step != inputs_.request.lock_step ? " --lock-step 1)" : ")"));
    return true;
  }

  /// The most rows of data that fit, where a share of the parameters does but what crosses the cuts does not.
  void fewer_rows() {
    if (!inputs_.by_shapes() || inputs_.problem.static_batch) return;
    const auto do_fit = [&](std::int64_t rows) {
      PlanInputs inputs = inputs_;
      inputs.problem.rows = rows;
      return make_plan(inputs).fits;
    };
    std::int64_t enough = 1, too_many = inputs_.problem.rows;
    if (too_many <= enough || !do_fit(enough)) return;
    while (too_many - enough > std::max<std::int64_t>(1, enough / 16)) {
      const std::int64_t middle = enough + (too_many - enough) / 2;
      (do_fit(middle) ? enough : too_many) = middle;
    }
    list_.push_back("--samples " + std::to_string(enough));
  }

  /// The most steps that fit: of the longest run alone where that is enough, else of all.
  void fewer_steps() {
    const auto longest = [](std::int64_t steps) { return DemandChange{.max_steps = steps}; };
    if (inputs_.demand.longest_steps > inputs_.demand.steps &&
        most_steps(longest, inputs_.demand.steps, inputs_.demand.longest_steps, "--max-steps "))
      return;
    const std::int64_t most = std::max(inputs_.demand.steps, inputs_.demand.longest_steps);
    if (inputs_.demand.longest_steps > 0)
      most_steps([](std::int64_t steps) { return DemandChange{steps, steps}; }, 2, most, "--steps and --max-steps ");
    else
      most_steps([](std::int64_t steps) { return DemandChange{.steps = steps}; }, 2, most, "--steps ");
  }

  bool most_steps(DemandChange (*change)(std::int64_t), std::int64_t enough, std::int64_t too_many,
                  const std::string& option) {
    const auto do_fit = [&](std::int64_t steps) {
      const auto demand = changed_(change(steps));
      return demand && fits(*demand);
    };
    if (too_many <= enough || !do_fit(enough)) return false;
    while (too_many - enough > 1) {
      const std::int64_t middle = enough + (too_many - enough) / 2;
      (do_fit(middle) ? enough : too_many) = middle;
    }
    list_.push_back(option + std::to_string(enough));
    return true;
  }

  void without_reorthogonalisation() {
    if (!inputs_.demand.reorthogonalize) return;
    const auto demand = changed_({.reorthogonalize = false});
    if (demand && fits(*demand)) list_.push_back("--reorthogonalization none (ghost eigenvalues blur the density)");
  }

  /// The least memory that would do, to a percent.
  void more_memory() {
    const auto with = [&](double factor) {
      PlanInputs inputs = inputs_;
      const auto scaled = [factor](std::int64_t bytes) {
        return static_cast<std::int64_t>(std::ceil(static_cast<double>(std::max<std::int64_t>(bytes, 1)) * factor));
      };
      inputs.machine.memory_bytes = scaled(inputs.machine.memory_bytes);
      return inputs;
    };
    double too_little = 1, enough = 2;
    while (enough < 1e9 && !make_plan(with(enough)).fits) {
      too_little = enough;
      enough *= 2;
    }
    if (enough >= 1e9) return;
    while (enough / too_little > 1.01) {
      const double middle = std::sqrt(enough * too_little);
      (make_plan(with(middle)).fits ? enough : too_little) = middle;
    }
    // A percent more, so that the number is enough as it is printed.
    list_.push_back("at least " + format_bytes(with(1.01 * enough).machine.memory_bytes) + " of memory for each rank");
  }

  const PlanInputs& inputs_;
  const ChangedDemand& changed_;
  std::vector<std::string> list_;
};

}  // namespace

std::vector<std::string> what_would_fit(const PlanInputs& inputs, const ChangedDemand& changed) {
  return Advisor(inputs, changed).suggestions();
}

}  // namespace hesspect
