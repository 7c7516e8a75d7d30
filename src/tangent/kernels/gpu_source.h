// The kernels' source for GPUs: the files that the CPU's kernels are made of, as one text.
#pragma once

namespace hesspect::fused {
extern const char* const kGpuSource;
}  // namespace hesspect::fused
