// Ops that run in another form: for a cheaper double backward, for one at all, or where they depend on how memory lies.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <string>
#include <vector>

namespace hesspect {

/// The other form of some aten ops.
struct Rewrite {
  std::vector<std::string> ops;
  bool any_overload;            // false: the default alone
  std::size_t least_arguments;  // and which of them must come at run time
  std::vector<std::size_t> given;
  /// Runs it on the op's own arguments, autograd on. @return the op's first output
  at::Tensor (*run)(const std::vector<c10::IValue>& arguments);
  /// What else it needs of the arguments (see can_rewrite); nullptr: nothing.
  bool (*covers)(const std::vector<c10::IValue>& constants, const std::vector<bool>& given) = nullptr;
  bool copies = false;  // its output may be a copy where the op's is a view, to which nothing may be written then
};

/// The form for an aten op of that name and overload; nullptr where there is none.
const Rewrite* rewrite_for(const std::string& name, const std::string& overload);

/// Whether the form covers these arguments. @param constants the arguments that are known, None for the others
/// @param given  which arguments come at run time
bool can_rewrite(const Rewrite& rewrite, const std::vector<c10::IValue>& constants, const std::vector<bool>& given);

}  // namespace hesspect
