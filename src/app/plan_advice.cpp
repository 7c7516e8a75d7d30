// What to change where a plan does not fit. Nothing is said that make_plan has not agreed to.
#include <algorithm>
#include <cmath>
#include <functional>

#include "hesspect/core/text.h"
#include "plan.h"
#include "plan_model.h"

namespace hesspect {
namespace {

constexpr std::size_t kMostSuggestions = 5;
constexpr int kMostRanks = 1 << 20;

class Advisor {
 public:
  Advisor(const PlanProblem& problem, const PlanCost& cost, const PlanWork& work, const PlanMachine& machine,
          const PlanRequest& request)
      : problem_(problem), cost_(cost), work_(work), machine_(machine), request_(request) {}

  std::vector<std::string> suggestions() {
    if (fits(work_, machine_, request_)) return {};
    free_what_is_fixed();
    more_ranks();
    narrower_basis();
    fewer_steps();
    if (work_.reorthogonalize && work_.eigen_steps == 0 && work_.steps > 1) {
      PlanWork work = work_;
      work.reorthogonalize = false;
      add_if(work, machine_, request_, "--reorthogonalization none (ghost eigenvalues blur the density)");
    }
    more_memory();
    if (list_.size() > kMostSuggestions) list_.resize(kMostSuggestions);
    return list_;
  }

 private:
  bool fits(const PlanWork& work, const PlanMachine& machine, const PlanRequest& request) const {
    return make_plan(problem_, cost_, work, machine, request).fits;
  }
  bool add_if(const PlanWork& work, const PlanMachine& machine, const PlanRequest& request, const std::string& text) {
    if (!fits(work, machine, request)) return false;
    list_.push_back(text);
    return true;
  }

  /// Options of the user's that a better value replaces: each alone, then all together.
  void free_what_is_fixed() {
    std::vector<std::pair<std::string, std::function<void(PlanRequest&)>>> fixed;
    if (request_.lock_step > 1) fixed.emplace_back("--lock-step", [](PlanRequest& r) { r.lock_step = 1; });
    if (request_.groups > 1) fixed.emplace_back("--groups", [](PlanRequest& r) { r.groups = 0; });
    if (request_.micro_batch > 1 && !problem_.static_batch && cost_.micro_batch > 0)
      fixed.emplace_back("--micro-batch", [](PlanRequest& r) { r.micro_batch = 0; });
    if (problem_.on_gpu && request_.basis_memory == BasisMemory::kDevice)
      fixed.emplace_back("--basis-memory", [](PlanRequest& r) { r.basis_memory = BasisMemory::kHost; });
    if (problem_.on_gpu && request_.basis_memory == BasisMemory::kHost)
      fixed.emplace_back("--basis-memory", [](PlanRequest& r) { r.basis_memory = BasisMemory::kDevice; });
    PlanRequest freed = request_;
    for (const auto& [name, change] : fixed) {
      PlanRequest request = request_;
      change(request);
      change(freed);
      const Plan plan = make_plan(problem_, cost_, work_, machine_, request);
      if (plan.fits) list_.push_back(with_value(name, plan));
    }
    if (!list_.empty() || fixed.size() < 2) return;
    const Plan plan = make_plan(problem_, cost_, work_, machine_, freed);
    if (!plan.fits) return;
    std::string together;
    for (const auto& [name, change] : fixed) {
      if (!together.empty()) together += ' ';
      together += with_value(name, plan);
    }
    list_.push_back(together);
  }

  static std::string with_value(const std::string& name, const Plan& plan) {
    if (name == "--lock-step") return name + " " + std::to_string(plan.lock_step);
    if (name == "--groups") return name + " " + std::to_string(plan.groups);
    if (name == "--micro-batch") return name + " " + std::to_string(plan.micro_batch);
    return name + " " + to_string(plan.basis_memory);
  }

  /// The fewest ranks that do in one group, each with as much memory as now; if no number does because of --lock-step,
  /// with one probe at a time.
  void more_ranks() {
    PlanRequest request = request_;
    request.groups = 1;
    if (ranks_that_do(request)) return;
    if (request_.lock_step <= 1) return;
    request.lock_step = 1;
    ranks_that_do(request);
  }

  bool ranks_that_do(const PlanRequest& request) {
    const auto do_fit = [&](int ranks) {
      PlanMachine machine = machine_;
      machine.world = ranks;
      return fits(work_, machine, request);
    };
    if (do_fit(machine_.world)) return true;  // fewer groups are enough, which has been said
    int too_few = machine_.world, enough = 2 * machine_.world;
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
                    (request.lock_step != request_.lock_step ? " --lock-step 1)" : ")"));
    return true;
  }

  /// Only where another was asked for: else it has been tried.
  void narrower_basis() {
    if (!request_.basis_dtype) return;
    for (const ElementType dtype : {ElementType::kF32, ElementType::kBF16}) {
      if (plan_model::bytes_of(dtype) >= plan_model::bytes_of(*request_.basis_dtype)) continue;
      PlanRequest request = request_;
      request.basis_dtype = dtype;
      if (add_if(work_, machine_, request, "--basis-dtype " + to_string(dtype))) return;
    }
  }

  void fewer_steps() {
    const auto limited = [&](std::int64_t steps) {
      PlanWork work = work_;
      work.steps = std::min(work.steps, steps);
      work.eigen_steps = std::min(work.eigen_steps, steps);
      return work;
    };
    std::int64_t enough = 2, too_many = std::max(work_.steps, work_.eigen_steps);
    if (too_many <= enough || !fits(limited(enough), machine_, request_)) return;
    while (too_many - enough > 1) {
      const std::int64_t middle = enough + (too_many - enough) / 2;
      (fits(limited(middle), machine_, request_) ? enough : too_many) = middle;
    }
    const std::string number = std::to_string(enough);
    if (work_.eigen_steps <= enough) {
      list_.push_back("--steps " + number);
    } else {
      list_.push_back("--max-steps " + number + (work_.steps > enough ? " (and no more --steps)" : ""));
    }
  }

  /// The least memory that would do, to a percent.
  void more_memory() {
    const auto with = [&](double factor) {
      PlanMachine machine = machine_;
      const auto scaled = [factor](std::int64_t bytes) {
        return static_cast<std::int64_t>(std::ceil(static_cast<double>(std::max<std::int64_t>(bytes, 1)) * factor));
      };
      machine.memory_bytes = scaled(machine_.memory_bytes);
      return machine;
    };
    double too_little = 1, enough = 2;
    while (enough < 1e9 && !fits(work_, with(enough), request_)) {
      too_little = enough;
      enough *= 2;
    }
    if (enough >= 1e9) return;
    while (enough / too_little > 1.01) {
      const double middle = std::sqrt(enough * too_little);
      (fits(work_, with(middle), request_) ? enough : too_little) = middle;
    }
    // A percent more, so that the number is enough as it is printed.
    list_.push_back("at least " + format_bytes(with(1.01 * enough).memory_bytes) + " of memory for each rank");
  }

  const PlanProblem& problem_;
  const PlanCost& cost_;
  const PlanWork& work_;
  const PlanMachine& machine_;
  const PlanRequest& request_;
  std::vector<std::string> list_;
};

}  // namespace

std::vector<std::string> what_would_fit(const PlanProblem& problem, const PlanCost& cost, const PlanWork& work,
                                        const PlanMachine& machine, const PlanRequest& request) {
  return Advisor(problem, cost, work, machine, request).suggestions();
}

}  // namespace hesspect
