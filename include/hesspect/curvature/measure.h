// What one micro-batch costs, in time and memory: measured before a run, for the plan of the run.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "hesspect/core/batch_cost.h"
#include "hesspect/curvature/hessian.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect {

/// What trials may leave to an operator over the same rows (HessianOptions::warm).
struct WarmStart {
  at::Tensor vector;  // [n], given: of the trials' products, such as the first that will be asked for
  std::shared_ptr<WarmProducts> products;  // found; nullptr where the last trial was not of all rows, or not kept
  std::int64_t bytes = 0;                  // that these take
};

/// Checks model and data against each other as HessianOperator does, then measures. Not collective: one rank does it,
/// inside `agree`.
/// @param first_rows  the first rows of the data, at least one; no more than these are tried at once
/// @param options     loss, output, micro_batch (0: chosen), check_double_backward; the rest is not used
/// @param memory_bytes  what the trials may take on the program's device
/// @param warm        on a CPU, where whole_data and all rows go through at once: what stays of the last trial
/// @throws InputError as HessianOperator; MemoryError where not even the smallest micro-batch fits
BatchCost measure_batch_cost(Program& program, const DataShard& first_rows, const HessianOptions& options,
                             std::int64_t memory_bytes, WarmStart* warm = nullptr);

/// Bytes that could still be taken on a device: available_memory_bytes() on the CPU, free device memory on CUDA.
std::int64_t free_memory_bytes(at::Device device);

/// The most that LibTorch held on a device since the process began; 0 on the CPU.
std::int64_t peak_device_bytes(at::Device device);

}  // namespace hesspect
