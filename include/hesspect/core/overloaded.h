// Several lambdas as one visitor of a variant.
#pragma once

namespace hesspect {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace hesspect
