// What one layout takes, in bytes and seconds: the formulas of docs/plan.md. plan.cpp chooses among layouts by them.
#pragma once

#include <cstdint>
#include <vector>

#include "hesspect/plan/plan.h"

namespace hesspect::plan_model {

/// bytes/s from host memory to a GPU.
inline constexpr double kHostToGpu = 20e9;

/// Where and how basis vectors are kept.
struct BasisChoice {
  ElementType dtype = ElementType::kF32;
  BasisMemory memory = BasisMemory::kDevice;  // kHost: beside a GPU
};

/// The choices that make a layout; the rest of a Plan follows from them.
struct Layout {
  int groups = 1;
  std::int64_t lock_step = 1;
  BasisChoice basis;
  std::int64_t micro_batch = 0;  // 0: not measured, not given
  ParameterMemory parameters = ParameterMemory::kReplicated;
};

/// Of an element.
inline std::int64_t bytes_of(ElementType dtype) { return static_cast<std::int64_t>(element_size(dtype)); }
/// The vectors' own dtype.
ElementType vector_dtype(const PlanProblem& problem);

/// Lanczos steps of an ordinary probe, and of the longest one: no more than there are dimensions.
std::int64_t ordinary_steps(const PlanProblem& problem, const Demand& demand);
std::int64_t longest_steps(const PlanProblem& problem, const Demand& demand);

/// How a group of the plan's works, where it shares the parameters.
ShardedWork work_of(const Plan& plan);
/// Seconds that one rank's arithmetic and messages take in a product of k vectors, where the group shares the
/// parameters: a segment's messages hide behind the arithmetic of another.
struct ShardedTimes {
  double product_s = 0, exposed_s = 0;  // exposed_s: of it, messages that nothing hides
};
ShardedTimes sharded_times(const PlanInputs& given, const Plan& plan, std::int64_t k);
/// Collectives of a product that carry parameters or vectors, and the bytes that a rank sends in them.
struct ShardedMessages {
  std::int64_t count = 0, bytes = 0;
};
ShardedMessages sharded_messages(const PlanInputs& given, const Plan& plan, std::int64_t k);
/// Memory of a rank whose group shares the parameters: all but the basis.
void add_sharded_bytes(const PlanInputs& given, const Layout& layout, std::int64_t joint, Plan& plan);

/// Bytes on the largest rank, as many kept graphs as fit, and whether all of it fits. No times.
Plan with_bytes(const PlanInputs& given, const Layout& layout);
/// How many bytes over what may be used, on the device and on the host.
std::int64_t excess_bytes(const PlanInputs& given, const Plan& plan);

/// Fills in products, messages and, with measured costs, times.
void add_forecast(const PlanInputs& given, Plan& plan);

}  // namespace hesspect::plan_model
