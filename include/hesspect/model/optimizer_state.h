// Adam's second moments from an optimiser's state dict, as torch.save wrote it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace hesspect {

/// The second moment of one parameter, and what its group's options were.
struct SecondMoment {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

  std::string name;        // of the parameter; empty: the file has its place alone
  std::int64_t place = 0;  // among the optimiser's parameters, from 0
  at::Tensor moment;       // v, not corrected for its bias; undefined: the optimiser has none of this parameter
  double step = 0;         // updates so far; 0: the file does not say
  double beta1 = kUnknown, beta2 = kUnknown, eps = kUnknown;
};

struct OptimizerState {
  std::filesystem::path file;
  std::string format;
  std::vector<SecondMoment> moments;  // of every parameter that the optimiser has, in its order
  std::int64_t groups = 1;            // of parameters
  bool named = false;                 // all have names
  bool largest = false;               // they are the largest so far, as amsgrad takes them (max_exp_avg_sq)
  std::shared_ptr<void> storage;      // keeps mappings alive
};

/// Whether the file is an archive of torch.save, by its first bytes. Never throws.
bool is_torch_archive(const std::filesystem::path& file);

/// Reads `state` and `param_groups`, at the top or under a key such as `optimizer`, of Adam and its relatives
/// (exp_avg_sq). States may be by number, in the order of the groups' `params`, or by name. Nothing in it is executed.
/// @throws InputError: no such archive, no optimiser's state or several, another optimiser's, broken
OptimizerState read_optimizer_state(const std::filesystem::path& file);

}  // namespace hesspect
