// The CPU's kernels as tables of functions, one table per instruction set and type.
//
// cpu_*.cpp are compiled for instruction sets that the machine may not have: nothing inline may stand here.
#pragma once

#include "arguments.h"
#include "list.h"

namespace hesspect::fused::raw {

/// Each runs its kernel for the units from `begin` to `end`.
#define HESSPECT_POINTER(name, Arguments) void (*name)(const Arguments<T>& arguments, Index begin, Index end);
template <class T>
struct CpuTable {
  HESSPECT_FUSED_KERNELS(HESSPECT_POINTER)
};
#undef HESSPECT_POINTER

#define HESSPECT_TABLES(isa)             \
  namespace isa {                        \
  extern const CpuTable<float> kFloat;   \
  extern const CpuTable<double> kDouble; \
  }
HESSPECT_TABLES(baseline)
HESSPECT_TABLES(avx2)
HESSPECT_TABLES(avx512)
#undef HESSPECT_TABLES

}  // namespace hesspect::fused::raw
