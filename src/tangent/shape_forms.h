// Ops whose output's shape LibTorch's C++ library can't find on the meta device (its forms for them are Python's).
#pragma once

namespace hesspect {

/// Gives LibTorch such forms, of those ops that models commonly have. Once in a process, at the first call.
void register_shape_forms();

}  // namespace hesspect
