// What one micro-batch costs, in time and memory: measured before a run, for the plan of the run.
#pragma once

#include <cstdint>

#include "hesspect/curvature/hessian.h"
#include "hesspect/data/dataset.h"
#include "hesspect/model/program.h"

namespace hesspect {

/// Costs on this process's device with its threads. Bytes of b rows: fixed + b · row.
struct BatchCost {
  std::int64_t micro_batch = 0;            // rows: as asked for, or the best of those tried
  double gradient_s = 0;                   // forward and backward, warm
  double graph_s = 0;                      // forward and backward that record the gradient graph
  double pullback_s = 0;                   // a product from a recorded graph
  std::int64_t graph_fixed_bytes = 0;      // held by a gradient graph between products: about the gradients themselves
  std::int64_t graph_row_bytes = 0;        // and the activations of each row
  std::int64_t transient_fixed_bytes = 0;  // peak of a product above what is held before it and the graph it uses
  std::int64_t transient_row_bytes = 0;
  std::int64_t output_row_bytes = 0;  // of the output that the loss takes (logits); the graph's bytes include them
  double graph_bytes(std::int64_t rows) const {
    return static_cast<double>(graph_fixed_bytes) + static_cast<double>(rows) * static_cast<double>(graph_row_bytes);
  }
  double transient_bytes(std::int64_t rows) const {
    return static_cast<double>(transient_fixed_bytes) +
           static_cast<double>(rows) * static_cast<double>(transient_row_bytes);
  }
};

/// Checks model and data against each other as HessianOperator does, then measures. Not collective: one rank does it,
/// inside `agree`.
/// @param first_rows  the first rows of the data, at least one; no more than these are tried at once
/// @param options     loss, output, micro_batch (0: chosen), check_double_backward; the rest is not used
/// @param memory_bytes  what the trials may take on the program's device
/// @throws InputError as HessianOperator; MemoryError where not even the smallest micro-batch fits
BatchCost measure_batch_cost(Program& program, const DataShard& first_rows, const HessianOptions& options,
                             std::int64_t memory_bytes);

/// Bytes that could still be taken on a device: available_memory_bytes() on the CPU, free device memory on CUDA.
std::int64_t free_memory_bytes(at::Device device);

/// The most that LibTorch held on a device since the process began; 0 on the CPU.
std::int64_t peak_device_bytes(at::Device device);

}  // namespace hesspect
