// Parameters near a model's own, for checks that must hold at any: where no entry is zero by chance, and where each is
// another number by one rounding.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace hesspect {

namespace changes {
/// Adds normal numbers of a tenth of the tensor's root mean square; the same every time. @param which  of the layout
void move_away(const at::Tensor& tensor, std::size_t which);
/// Changes each entry by a factor 1 ± epsilon. @param draw  of signs
void round(const at::Tensor& tensor, std::size_t which, double epsilon, int draw);
}  // namespace changes

/// Where the parameters are that are changed and set back.
class ParameterChanges {
 public:
  virtual ~ParameterChanges() = default;
  /// From now on `set` gives parameters near those that are kept.
  virtual void move_away() = 0;
  /// Changes each parameter by one rounding, up or down, until `set`.
  virtual void round(double epsilon, int draw) = 0;
  virtual void set() = 0;
};

}  // namespace hesspect
