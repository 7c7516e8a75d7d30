// The program's outputs as the loss takes them, and the loss that is an output itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hesspect/curvature/loss.h"
#include "hesspect/model/program.h"
#include "hesspect/tangent/objective.h"
#include "local_loss.h"

namespace hesspect {

/// "output 1 ('loss')"
std::string name_of_output(const Program& program, int index);

/// True for an output with one entry a row, rather than a scalar: known from its exported shape.
bool is_per_row_output(const Program& program, int index);

/// One output with the rows first and without padding; a scalar as it is.
/// @param may_be_scalar  a scalar is taken, too
/// @param batch  that the program was run on
/// @throws InputError: not floating, or of other rows than were fed
at::Tensor output_of(const Program& program, const std::vector<at::Tensor>& outputs, int index, const MicroBatch& batch,
                     bool may_be_scalar);

/// The sum and count of a loss that the program computes, with autograd on. A scalar mean is multiplied by its count, a
/// scalar sum is taken as it is, and losses of rows are added up. The count is the program's own where it has one, else
/// the number of rows.
/// @throws InputError: a count that is negative or not finite
LossSum output_loss(const Program& program, const LossOptions& options, int index, const MicroBatch& batch);

/// What output_loss counts on the outputs of a micro-batch. A constant of it, for it may not depend on the parameters.
/// @throws InputError: a count that is negative or not finite
double output_count(const Program& program, const LossOptions& options, const std::vector<at::Tensor>& outputs,
                    const MicroBatch& batch);

/// The sum of output_loss in closed form, of what output_of returns; it is linear in that.
/// @param outer  each entry's outer product stands for the second derivative, which is zero
std::unique_ptr<RowObjective> output_rows(const Program& program, const LossOptions& options, int index,
                                          const at::Tensor& output_like, double count, bool outer = false);

/// @throws InputError: an output that is neither a scalar nor one loss a row; a count of another shape, or one that
///         depends on the parameters
void check_output_loss(const Program& program, const LossOptions& options, int index, const MicroBatch& batch);

}  // namespace hesspect
